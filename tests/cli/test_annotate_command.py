"""`maskrt annotate`: what it takes, what it refuses before anyone has clicked, and how it ends."""

import http.client
import json
import re
import signal
import socket
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
from maskrt.runtime.annotate.pictures import find_pictures, open_picture
from maskrt.runtime.annotate.store import Store

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


def started(ward: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, fake_annotator.__file__, "annotate", "bundle", str(ward), "--out", str(out)]
    return interruptible.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_as_soon_as_the_address_is_there(end: signal.Signals, ward: Path, tmp_path: Path) -> None:
    for _ in range(3):
        with started(ward, tmp_path / "out") as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("http://")
            process.send_signal(end)
            process.send_signal(end)  # impatient
            told, complaints = process.communicate(timeout=60)
        assert (process.returncode, complaints) == (0, "")
        assert told.endswith(f"0 objects on 0 images: {tmp_path / 'out'}\n")


def test_an_end_while_requests_are_unfinished(ward: Path, tmp_path: Path) -> None:
    with started(ward, tmp_path / "out") as process:
        assert process.stdout is not None
        port, token = re.findall(r"http://127\.0\.0\.1:(\d+)/([\w-]+)/", process.stdout.readline())[0]
        head = f"POST /{token}/act HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        socks = [socket.create_connection(("127.0.0.1", int(port)), timeout=60) for _ in range(20)]
        for sock, data in zip(socks, ["", "GET", head, f"{head}Content-Length: 99\r\n\r\n{{"] * 5, strict=True):
            sock.sendall(data.encode())
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
        for sock in socks:
            sock.close()
    assert (process.returncode, complaints) == (0, "")


def test_a_second_one_in_the_same_folder_is_refused(ward: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with started(ward, out) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with started(ward, out) as second:
            told, complaints = second.communicate(timeout=60)
        message = f"error: another maskrt annotate works in {out}: end it with Ctrl-C, or choose another --out\n"
        assert (second.returncode, told, complaints) == (2, "", message)
        first.kill()
    with started(ward, out) as third:
        assert third.stdout is not None
        assert third.stdout.readline().startswith("http://")
        third.send_signal(signal.SIGINT)
        assert third.wait(timeout=60) == 0


def test_label_pictures_that_are_drawn_again_are_named(
    ward: Path, tmp_path: Path, asked: dict[str, Any], capsys: Any
) -> None:
    out = tmp_path / "out"
    store = Store(out, ["object"])
    store.add(open_picture(find_pictures(str(ward))[0], 10**6), "object", np.ones((60, 80), np.bool_), [], None)
    (out / "masks/bed_1.png").unlink()
    (out / "masks/bed_9.png").touch()
    assert run(ward, "--out", out) == 0
    assert capsys.readouterr().err == (
        f"1 of {out}/masks not as annotations.json says: drawn again: bed_1.png\n"
        f"1 of {out}/masks not in annotations.json: left as they are: bed_9.png\n"
    )
