"""The command line as a user meets it: messages, exit codes, help."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import interruptible
import pytest
from PIL import Image

from maskrt.cli.main import COMMANDS, main
from maskrt.cli.options import on_device, parse_counts, parse_list, parse_roi, parse_settings, parse_size, parse_triple
from maskrt.runtime.errors import InputError
from maskrt.runtime.io.masks import read_labels

Maskrt = Callable[..., tuple[int, str, str]]


@pytest.fixture
def maskrt(capfd: pytest.CaptureFixture[str]) -> Maskrt:
    """maskrt(*arguments) -> exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        output = capfd.readouterr()
        return int(stopped.value.code or 0), output.out, output.err

    return call


def test_version_and_help(maskrt: Maskrt) -> None:
    assert maskrt("--version") == (0, "maskrt 0.1.0\n", "")
    code, out, _ = maskrt("--help")
    assert code == 0
    assert all(f"\n  {command} " in out for command in COMMANDS)


@pytest.mark.parametrize(
    "command", [*((name,) for name in COMMANDS if name != "export"), ("export", "soss"), ("export", "sam")]
)
def test_every_command_has_help_with_an_example(maskrt: Maskrt, command: tuple[str, ...]) -> None:
    code, out, err = maskrt(*command, "--help")
    assert (code, err) == (0, "")
    assert f"\n    maskrt {' '.join(command)} " in out[out.index("  Example:\n") :]


@pytest.mark.parametrize(
    "arguments", [("nothing",), ("run",), ("run", "a", "b", "--out", "c", "--wrong"), ("doctor", "x", "y")]
)
def test_usage_errors_are_2(maskrt: Maskrt, arguments: tuple[str, ...]) -> None:
    code, out, err = maskrt(*arguments)
    assert (code, out) == (2, "")
    assert "Error: " in err


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("place", [0, 3])
def test_errors_are_one_line_unless_debug(maskrt: Maskrt, debug: bool, place: int) -> None:
    arguments = ["run", "no_bundle", "no_source", "--out", "x"]
    if debug:
        arguments.insert(place, "--debug")
    code, _, err = maskrt(*arguments)
    assert code == 2
    assert err.splitlines()[-1].startswith("error: no_bundle is not a bundle")
    assert ("Traceback" in err) is debug
    assert debug or err.count("\n") == 1


def test_unexpected_errors_are_one_line(maskrt: Maskrt, monkeypatch: pytest.MonkeyPatch) -> None:
    from maskrt.runtime import doctor

    monkeypatch.setattr(doctor, "examine", lambda: 1 / 0)
    code, _, err = maskrt("doctor")
    assert (code, err) == (
        1,
        "error: unexpected ZeroDivisionError: division by zero; run again with --debug for the details\n",
    )


@pytest.mark.parametrize("in_kernel", [False, True])
def test_ctrl_c_is_130(maskrt: Maskrt, monkeypatch: pytest.MonkeyPatch, in_kernel: bool) -> None:
    from maskrt.runtime import doctor

    def interrupted() -> None:
        if in_kernel:  # what numba makes of it
            raise SystemError("returned a result with an exception set") from KeyboardInterrupt()
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "examine", interrupted)
    assert maskrt("doctor") == (130, "", "interrupted\n")


def test_doctor(maskrt: Maskrt) -> None:
    import json

    code, out, _ = maskrt("doctor", "--json")
    assert code == 0
    assert json.loads(out)["commands"]["run"] == "ready"
    assert json.loads(out)["providers"]["cpu"] == "works"
    assert "maskrt export" in maskrt("doctor")[1]


def test_bench_refuses_what_is_no_number(maskrt: Maskrt) -> None:
    code, _, err = maskrt("bench", "throughput", "--streams", "1,0")
    assert (code, err) == (2, "error: --streams 1,0: expected whole numbers from 1, for example 1,2\n")


def test_scenes(maskrt: Maskrt, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    code, out, _ = maskrt("scenes", "--seed", 7, "--count", 2, "--size", "96x54", "--out", tmp_path)
    assert (code, out) == (0, f"2 scenes in {tmp_path}\n")
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["scene_000007.png", "scene_000008.png"]
    code, _, err = maskrt("scenes", "--size", "96", "--out", tmp_path)
    assert (code, err) == (2, "error: --size 96: expected WIDTHxHEIGHT, for example 1920x1080\n")


def test_novel_scenes(maskrt: Maskrt, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    novel = "scenes", "--domain", "novel", "--out", tmp_path
    code, out, _ = maskrt(*novel, "--seed", 7, "--count", 2, "--size", "96x80", "--family", "rings")
    assert (code, out) == (0, f"2 scenes in {tmp_path}\n")
    for folder in ("images", "truth"):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["novel_000007.png", "novel_000008.png"]
    labels = read_labels(tmp_path / "truth" / "novel_000007.png")
    assert labels.shape == (80, 96)
    assert 2 <= labels.max() <= 5
    code, _, err = maskrt(*novel, "--family", "birds")
    assert code == 2
    assert err.startswith("error: unknown family 'birds'; known: rosettes, ")
    code, _, err = maskrt("scenes", "--family", "rings", "--out", tmp_path)
    assert (code, err) == (2, "error: --family is an option of --domain novel: leave one out or give both\n")


def test_option_values() -> None:
    assert parse_roi("1,2,3,4") == (1, 2, 3, 4)
    assert parse_size("64x48") == (64, 48)
    assert parse_triple("0.5,1,2", "--std") == (0.5, 1.0, 2.0)
    assert parse_list("mask, label,mask,") == ("mask", "label")
    assert parse_counts("1, 4,16", "--streams") == (1, 4, 16)
    assert parse_counts(None, "--streams") == ()
    assert (on_device("cuda", None), on_device("cuda", 0)) == ("cuda", "cuda:0")
    assert parse_settings(["a=20", "b=0.5", "c=hard", "d=", "e=x=y"]) == {
        "a": 20,
        "b": 0.5,
        "c": "hard",
        "d": "",
        "e": "x=y",
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parse_roi("1,2,3"), "expected X,Y,WIDTH,HEIGHT"),
        (lambda: parse_roi("a,b,c,d"), "expected X,Y,WIDTH,HEIGHT"),
        (lambda: parse_size("0x5"), "both sides must be positive"),
        (lambda: parse_triple("1,2", "--mean"), "--mean 1,2: expected three numbers"),
        (lambda: parse_counts("", "--streams"), "--streams : expected whole numbers from 1"),
        (lambda: parse_counts("2,x", "--streams"), "--streams 2,x: expected whole numbers from 1"),
        (lambda: parse_settings(["a"]), "expected KEY=VALUE"),
        (lambda: parse_settings(["a=1", "a=2"]), "given twice"),
    ],
)
def test_wrong_option_values(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


# `maskrt` that says when its second frame is written, and then works until Ctrl-C comes.
RUN_UNTIL_CTRL_C = """
import sys, threading
from maskrt.cli.main import main
from maskrt.runtime.io import sinks

write, written = sinks.FolderSink.write, []

def told(self, frame, result):
    write(self, frame, result)
    written.append(frame.name)
    if len(written) == 2:
        print("two are written", flush=True)
        threading.Event().wait()

sinks.FolderSink.write = told
main(sys.argv[1:])
"""


def test_ctrl_c_in_a_run_says_what_is_kept_and_resume_does_the_rest(
    maskrt: Maskrt, tiny_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "ward").mkdir()
    for index in range(5):
        Image.new("RGB", (200, 150), (50 * index, 90, 90)).save(tmp_path / f"ward/{index}.png")
    out = tmp_path / "out"
    arguments = ["run", str(tiny_bundle), str(tmp_path / "ward"), "--out", str(out)]
    command = [sys.executable, "-c", RUN_UNTIL_CTRL_C, *arguments]
    with interruptible.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "two are written\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert len(list((out / "mask").glob("*.png"))) == 2
    assert f"frames are in {out}; the same command with --resume does the rest" in err
    code, stdout, _ = maskrt(*arguments, "--resume")
    assert code == 0
    assert stdout.endswith(f"0 failed: {out}\n")
    assert len(list((out / "mask").glob("*.png"))) == 5
