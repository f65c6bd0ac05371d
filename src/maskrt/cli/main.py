"""`maskrt`: the registry of commands, and the one place where errors become messages and exit codes.

Exit codes: 0 done; 1 failed; 2 the input or the options cannot be used; 3 done, but some frames failed; 130 stopped
with Ctrl-C. A command is a module of this package, `_` for `-` in its name, with `command`, a function, or `app`, a
group of commands. It imports what is heavy or optional inside the function, so that `maskrt --help` is fast and every
command is listed in the lean installation.
"""

import functools
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from maskrt import __version__
from maskrt.cli.interrupt import INTERRUPTS, Interrupted, is_interrupt
from maskrt.cli.say import say, say_warnings, survive_any_name
from maskrt.runtime.errors import MaskrtError

COMMANDS = (
    "demo",
    "run",
    "refine",
    "annotate",
    "eval",
    "eval-interactive",
    "verify",
    "bench",
    "export",
    "build",
    "inspect",
    "scenes",
    "serve",
    "doctor",
)
# Optional module -> the extra that installs it.
EXTRAS = {
    "onnxruntime": "cpu",
    "av": "video",
    "starlette": "annotate",
    "uvicorn": "annotate",
    "cv2": "demo",
    "skimage": "demo",
    "torch": "export",
    "segment_anything": "export",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxscript": "export",
}

app = typer.Typer(
    name="maskrt",
    help="Segmentation models exported once to ONNX and run lean. Start with: maskrt doctor",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text, also in a pipe or a log
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=lambda v: _version(v))
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from; works anywhere.")] = False,
) -> None:
    """Options before the command; main() takes --debug out before they are parsed."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    # Read when numba loads its threads, at the first kernel. Waiting threads otherwise spin: on two cores shared with
    # another busy program a 160 x 90 frame then took 3 to 23 s in place of 0.02 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    survive_any_name()
    say_warnings()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        app(args=[argument for argument in arguments if argument != "--debug"], prog_name="maskrt")
    except Exception as error:
        if debug:
            traceback.print_exc()
        message, code = _explained(error)
        say(message if isinstance(error, Interrupted) else f"error: {message}", err=True)
        say(*(f"  {note}" for note in getattr(error, "__notes__", ())), err=True)
        sys.exit(code)


def _explained(error: Exception) -> tuple[str, int]:
    """One line for the user, and the exit code."""
    if isinstance(error, Interrupted):
        return str(error), 130
    if isinstance(error, MaskrtError):
        return str(error), error.exit_code
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is not None:
            return f"this needs {error.name}: pip install 'maskrt[{extra}]'", 1
    first = str(error).strip().partition("\n")[0]
    return f"unexpected {type(error).__name__}: {first}; run again with --debug for the details", 1


def _version(wanted: bool) -> None:
    if wanted:
        say(f"maskrt {__version__}")
        raise typer.Exit


def _interruptible(function: Callable[..., Any]) -> Callable[..., Any]:
    """Typer versions differ in what they make of Ctrl-C; this reaches main() through all of them."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except INTERRUPTS as error:
            if not is_interrupt(error):
                raise
            raise Interrupted("interrupted") from error

    return wrapped


def _register() -> None:
    for name in COMMANDS:
        module = importlib.import_module(f"maskrt.cli.{name.replace('-', '_')}")
        if hasattr(module, "app"):
            for info in module.app.registered_commands:
                info.callback = _interruptible(info.callback)
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(_interruptible(module.command))


_register()
