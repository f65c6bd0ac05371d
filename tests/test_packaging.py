"""The shipped project: links that resolve, a wheel with every module, a runtime without the export side."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("benchmarks", "export", "kernels", "runtime")
BLOCKER = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""
OPTIONAL = {
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "segment_anything",
    "cv2",
    "scipy",
    "skimage",
    "av",
    "starlette",
    "uvicorn",
    "tensorrt",
}


def source_files() -> list[Path]:
    """Tracked and new files, relative to the root; what git ignores is not part of the project."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def modules_of(part: str) -> list[str]:
    """Names of the modules in a folder of src/maskrt, which may be a link."""
    folder = ROOT / "src/maskrt" / part
    files = [path for path in folder.rglob("*.py") if "__pycache__" not in path.parts]
    names = [".".join(("maskrt", part, *path.relative_to(folder).with_suffix("").parts)) for path in files]
    return sorted(name.removesuffix(".__init__") for name in names)


def run_blocked(code: str, blocked: set[str]) -> subprocess.CompletedProcess[str]:
    """Run Python code where some modules do not exist."""
    script = BLOCKER.format(blocked=blocked) + code
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize("part", PARTS)
def test_links_resolve(part: str) -> None:
    link = ROOT / "src/maskrt" / part
    assert link.is_symlink()
    assert link.readlink() == Path("../..") / part
    assert link.resolve() == ROOT / part
    assert (link / "__init__.py").is_file()


def test_runtime_and_command_line_import_in_a_bare_environment() -> None:
    modules = modules_of("runtime") + modules_of("kernels") + modules_of("cli")
    assert len(modules) > 30
    # onnxruntime too: which of its distributions to install is the user's choice.
    done = run_blocked(f"for name in {modules!r}: __import__(name)", OPTIONAL | {"onnxruntime"})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "blocked", "code", "expected"),
    [
        (["--help"], OPTIONAL | {"onnxruntime"}, 0, ""),
        (["run", "--help"], OPTIONAL | {"onnxruntime"}, 0, ""),
        (["export", "soss", "--segmenter", "a:b", "--sam", "c:d", "--out", "x"], OPTIONAL, 1, "maskrt[export]"),
        (["scenes", "--out", "x"], OPTIONAL, 1, "maskrt[demo]"),
        (["annotate", "x", "y", "--out", "z"], OPTIONAL, 1, "maskrt[annotate]"),
        (["doctor"], {"onnxruntime"}, 1, ""),
    ],
)
def test_commands_say_what_to_install(
    arguments: list[str], blocked: set[str], code: int, expected: str, tmp_path: Path
) -> None:
    done = run_blocked(f"from maskrt.cli.main import main; main({arguments!r})", blocked)
    assert done.returncode == code, done.stderr
    assert expected in done.stderr
    assert done.stderr.count("\n") == (1 if expected else 0)


def test_run_without_an_engine_says_what_to_install(tiny_bundle: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    arguments = ["run", str(tiny_bundle), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    done = run_blocked(f"from maskrt.cli.main import main; main({arguments!r})", {"onnxruntime"})
    assert (done.returncode, done.stderr) == (1, "error: this needs onnxruntime: pip install 'maskrt[cpu]'\n")


def test_the_wheel_holds_every_module(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in source_files():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, copy / path, follow_symlinks=False)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    # Every file but the demo's models and the figures: with some 50 MB of them the runtime would outgrow its 400 MB.
    demo = ("bundle", "two_stage", "interactive", "weights")
    left_out = (*(Path("export/demo") / name for name in demo), Path("benchmarks/results"))
    files = [path for path in source_files() if path.parts[0] in PARTS]
    expected = {str("maskrt" / path) for path in files if not any(path.is_relative_to(f) for f in left_out)}
    expected |= {
        str(path.relative_to("src")) for path in source_files() if path.parts[0] == "src" and path.suffix == ".py"
    }
    assert len(expected) > 60
    assert expected - packed == set()
    assert "maskrt/py.typed" in packed
    assert not [name for name in packed if name.startswith(("tests", "src"))]


def test_no_source_file_is_long() -> None:
    lengths = {
        path: len((ROOT / path).read_text().splitlines())
        for path in source_files()
        if path.suffix == ".py" and not (ROOT / path).is_symlink()
    }
    limit = {path: 400 if path.parts[0] == "tests" else 350 for path in lengths}
    assert {str(path): length for path, length in lengths.items() if length > limit[path]} == {}
