"""`maskrt annotate`: what it takes, what it refuses before anyone has clicked, and how it ends."""

import http.client
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_annotator
import interruptible
import numpy as np
import pytest
from PIL import Image

from maskrt.cli import main as command_line
from maskrt.runtime.annotate import server

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def ward(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "ward"
    folder.mkdir()
    for name in ("bed_1.png", "bed_2.png"):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments that the command opens a session with; its server ends at once."""
    asked: dict[str, Any] = {}
    session = fake_annotator.FakeAnnotator()
    module = fake_annotator.stand_in(session, asked)
    monkeypatch.setitem(sys.modules, "maskrt.runtime.interactive.session", module)
    monkeypatch.setattr(server, "serve", lambda app, sock, begin, finish: (begin(), asked.update(session=session)))
    return asked


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        command_line.main(["annotate", "bundle", *map(str, arguments)])
    code = ended.value.code
    return code if isinstance(code, int) else 0


def test_options_reach_the_session(ward: Path, tmp_path: Path, asked: dict[str, Any], capsys: Any) -> None:
    (tmp_path / "tube.safetensors").write_text("7")
    options = ["--classes", "tube,blanket", "--load", f"tube={tmp_path}/tube.safetensors", "--threads", "3"]
    options += [
        "--set",
        "click_adaptation=C",
        "--set",
        "erosions=2",
        "--provider",
        "cuda",
        "--device",
        "1",
        "--cache-images",
        "4",
    ]
    assert run(ward, "--out", tmp_path / "out", *options) == 0
    session = asked.pop("session")
    assert asked == {
        "bundle": Path("bundle"),
        "provider": "cuda:1",
        "threads": 3,
        "click_adaptation": "C",
        "erosions": 2,
        "cache_images": 4,
    }
    assert (session.decoder, session.learnt["tube"]) == ("tube", 7)
    told = capsys.readouterr().out
    assert re.search(r"^http://127\.0\.0\.1:\d+/[\w-]{32,}/$", told, re.M)
    assert f"0 objects on 0 images: {tmp_path / 'out'}" in told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--classes", ","], "--classes is empty"),
        (["--classes", "a/b"], "cannot name a file"),
        (["--classes", "base"], "choose another name"),
        (["--load", "object"], "expected NAME=VALUE"),
        (["--load", "cat=x"], "there is no such class"),
        (["--set", "erosions"], "expected KEY=VALUE"),
    ],
)
def test_options_that_are_refused(
    options: list[str], said: str, ward: Path, tmp_path: Path, asked: dict[str, Any], capsys: Any
) -> None:
    assert run(ward, "--out", tmp_path / "out", *options) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert "http" not in told.out


def test_pictures_and_folders_that_are_refused(ward: Path, tmp_path: Path, asked: dict[str, Any], capsys: Any) -> None:
    assert run(tmp_path / "nowhere", "--out", tmp_path / "out") == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert run(ward, "--out", ward) == 2
    assert "choose a new or empty folder" in capsys.readouterr().err
    assert sorted(path.name for path in ward.iterdir()) == ["bed_1.png", "bed_2.png"]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_end_saves_what_was_learnt(end: signal.Signals, ward: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, fake_annotator.__file__, "annotate", "bundle", str(ward), "--out", str(out)]
    with interruptible.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        port, token = re.findall(r"http://127\.0\.0\.1:(\d+)/([\w-]+)/", process.stdout.readline())[0]
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        for turn, do in enumerate([{"kind": "click", "x": 30, "y": 20}, {"kind": "accept"}]):
            connection.request("POST", f"/{token}/act", json.dumps({"turn": turn, "do": do}), JSON)
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["error"]) == (200, None)
        connection.close()
        assert not (out / "decoders").exists()
        process.send_signal(end)
        told, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "")
    assert told.endswith(f"1 objects on 1 images: {out}\n")
    assert (out / "decoders/object.safetensors").read_text() == "1"
    assert (out / "masks/bed_1.png").is_file()
