"""`maskrt doctor BUNDLE`: the kind, and which commands take it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.kinds.commands import COMMANDS

Maskrt = Callable[..., tuple[int, str, str]]
# Kind -> the commands that take such a bundle, beside those that take any.
TAKEN = {
    "soss": {"run", "eval", "verify --image", "export precisions"},
    "refine": {"refine", "eval --masks", "verify --masks", "export precisions"},
    "two_stage": {"run", "eval", "verify --image", "export precisions"},
    "interactive": {"annotate", "serve", "eval-interactive"},
}
ANY = {"verify", "inspect", "build", "doctor"}


@pytest.mark.parametrize("kind", TAKEN)
def test_which_commands_take_it(maskrt: Maskrt, tiny_bundles: dict[str, Path], kind: str) -> None:
    bundle = tiny_bundles[kind]
    code, out, err = maskrt("doctor", bundle, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    about = report["bundle"]
    assert (about["path"], about["kind"], about["holds"]) == (str(bundle), kind, open_bundle(bundle).manifest.holds)
    assert set(about["commands"]) == set(COMMANDS)
    taken = {command for command, answer in about["commands"].items() if answer == "takes it"}
    assert taken == TAKEN[kind] | ANY
    for command in set(COMMANDS) - taken:
        assert f"is of kind {kind} and holds " in about["commands"][command]
    assert report["commands"]["run"] == "ready"  # of the machine, as without a bundle


@pytest.mark.parametrize("kind", TAKEN)
def test_in_words(maskrt: Maskrt, tiny_bundles: dict[str, Path], kind: str) -> None:
    code, out, _ = maskrt("doctor", tiny_bundles[kind])
    assert code == 0
    lines = out.splitlines()
    (first,) = (number for number, line in enumerate(lines) if line.startswith(f"{tiny_bundles[kind]}: "))
    assert f"of kind {kind}" in lines[first]
    said = {line[len("maskrt ") : 26].strip(): line[26:] for line in lines[first + 1 :]}
    assert set(said) == set(COMMANDS)
    assert {command for command, answer in said.items() if answer == "takes it"} == TAKEN[kind] | ANY
    assert {answer for command, answer in said.items() if command not in TAKEN[kind] | ANY} == {"does not take it"}


def test_a_bundle_that_is_not_whole(maskrt: Maskrt, tiny_bundle: Path, tmp_path: Path) -> None:
    code, out, err = maskrt("doctor", tmp_path)
    assert (code, out) == (2, "")
    assert "is not a bundle" in err
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    (copy / "decoder.onnx").write_bytes(b"altered")
    code, out, err = maskrt("doctor", copy)
    assert (code, out) == (2, "")
    assert "decoder.onnx: 7 bytes, the bundle says" in err
    assert err.count("\n") == 1
