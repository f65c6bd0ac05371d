"""`maskrt build --refit-from`: engines that take the weights of another graph of their structure."""

import errno
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from refittable import Feeds, as_of_schema_2, build, edit, on_cpu, on_gpu, other_operator
from tensorrt_standin.behaviour import check_plan
from tiny_bundle import write_tiny_bundle

from maskrt.export.graph_tools.structure import structure_sha256
from maskrt.runtime.errors import MaskrtError
from maskrt.runtime.files import sha256_of

Maskrt = Callable[..., tuple[int, str, str]]


def test_a_decoder_that_has_learnt(
    monkeypatch: pytest.MonkeyPatch, tensorrt_device: Any, old: Path, new: Path, feeds: Feeds, maskrt: Maskrt
) -> None:
    monkeypatch.setattr("maskrt.cli.progress.EVERY_S", 0.0)
    assert maskrt("build", old, "--engine", "tensorrt")[0] == 0
    code, told, progress = maskrt("build", new, "--engine", "tensorrt", "--refit-from", old)
    lines = told.splitlines()[1:]
    assert code == 0
    for role, line in zip(("segmenter", "encoder"), lines, strict=False):
        assert line.startswith(f"  {role}: built: {new}/engines/")
        assert line.endswith(f"{role}.engine (not refitted: only engines of SAM's decoder are refitted)")
    assert lines[2].startswith(f"  decoder: refitted: {new}/engines/")
    assert lines[2].endswith("decoder.engine")
    assert "3 of 3, decoder: refitting" in progress
    assert (tensorrt_device.built, tensorrt_device.refitted) == (5, 1)
    for bundle in (old, new):
        assert np.allclose(on_gpu(bundle, feeds), on_cpu(bundle, feeds), atol=1e-4)
    assert not np.allclose(on_gpu(old, feeds), on_gpu(new, feeds), atol=1)
    code, told, _ = maskrt("build", new, "--engine", "tensorrt", "--refit-from", old)
    assert (code, told.count(": found: "), told.count("refitted")) == (0, 3, 0)


def test_again_and_again(tensorrt_machine: Any, old: Path, tmp_path: Path, feeds: Feeds) -> None:
    """An engine that was refitted can be refitted; the recipe says so, and nothing else has to be built."""
    build(old)
    for step in range(3):
        bundle = write_tiny_bundle(tmp_path / f"step {step}", radii=(3.0 + step, 8.0, 12.0))
        built = build(bundle, old)
        assert (built.how, built.why) == ("refitted", "")
        assert np.allclose(on_gpu(bundle, feeds), on_cpu(bundle, feeds), atol=1e-3)
        old = bundle
    record = msgspec.json.decode(built.engine.with_suffix(".json").read_bytes())
    assert record["recipe"]["flags"] == ["REFIT"]
    if tensorrt_machine is not None:
        assert check_plan(built.engine).flags == ["REFIT"]
        assert tensorrt_machine.built == 1


def test_weights_beside_the_graph(tensorrt_device: Any, old: Path, new: Path, feeds: Feeds) -> None:
    """The hash of the engine's model takes in both files."""
    file, expected = new / "decoder.onnx", on_cpu(new, feeds)
    structure = structure_sha256(file)
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="decoder.onnx.data", size_threshold=0)
    assert structure_sha256(file) == structure
    data = file.with_name("decoder.onnx.data")
    beside = {"file": data.name, "sha256": sha256_of(data), "size_bytes": data.stat().st_size}
    changed = {"sha256": sha256_of(file), "size_bytes": file.stat().st_size, "data": [beside]}
    edit(new, lambda manifest: manifest["models"]["decoder"].update(changed))
    build(old)
    assert build(new, old).how == "refitted"
    assert np.allclose(on_gpu(new, feeds), expected, atol=1e-4)


def cut(engine: Path, device: Any) -> None:
    engine.write_bytes(engine.read_bytes()[:-1])


NOT_REFITTED: dict[str, tuple[Callable[[Path, Path, Any], Any], str]] = {
    "no engine": (
        lambda old, engine, device: shutil.rmtree(old / "engines"),
        "decoder.onnx has no TensorRT engine yet",
    ),
    "cut short": (lambda old, engine, device: cut(engine, device), "its record says .*: truncated"),
    "open to others": (
        lambda old, engine, device: engine.chmod(0o666),
        "is code, and others than its owner can change",
    ),
    "other GPU": (
        lambda old, engine, device: setattr(device, "name", "NVIDIA T4"),
        r"engine built for .* on NVIDIA L4 .*, found .* on NVIDIA T4",
    ),
    "other driver": (
        lambda old, engine, device: setattr(device, "driver", 12080),
        r"engine built for .* driver for CUDA 13\.0, found .* driver for CUDA 12\.8",
    ),
    "other network": (
        lambda old, engine, device: other_operator(old),
        "decoder.onnx: it and its engine's graph differ in more than their weights",
    ),
    "no structure": (
        lambda old, engine, device: as_of_schema_2(old),
        "its bundle or its engine's has no structure_sha256, as those of older versions: export them again",
    ),
    "no such role": (
        lambda old, engine, device: edit(old, lambda manifest: manifest["models"].pop("decoder")),
        "has no decoder; it holds: segmenter, encoder",
    ),
    "exported again": (lambda old, engine, device: write_tiny_bundle(old, radii=(2.0, 3.0, 4.0)), "from another model"),
    "missing weights": (
        lambda old, engine, device: device.withheld.add("squares"),
        "decoder.onnx: it lacks weights of its engine: squares",
    ),
}


@pytest.mark.parametrize("case", NOT_REFITTED)
def test_what_cannot_be_refitted_is_built(
    tensorrt_device: Any, old: Path, new: Path, feeds: Feeds, case: str, maskrt: Maskrt
) -> None:
    spoil, reason = NOT_REFITTED[case]
    engine = build(old).engine
    spoil(old, engine, tensorrt_device)
    code, told, _ = maskrt("build", new, "--engine", "tensorrt", "--refit-from", old)
    assert code == 0
    (line,) = (line for line in told.splitlines() if "decoder:" in line)
    assert line.startswith(f"  decoder: built: {new}/engines/")
    assert re.search(rf"decoder\.engine \(not refitted: .*{reason}.*\)$", line)
    assert tensorrt_device.refitted == 0
    assert np.allclose(on_gpu(new, feeds), on_cpu(new, feeds), atol=1e-4)


def test_an_engine_that_tensorrt_does_not_load(tensorrt_device: Any, old: Path, new: Path) -> None:
    """As if it had been written so: its record fits it."""
    engine = build(old).engine
    plan = b"nonsense" + engine.read_bytes()
    engine.write_bytes(plan)
    record = msgspec.json.decode(engine.with_suffix(".json").read_bytes())
    record |= {"plan_sha256": hashlib.sha256(plan).hexdigest(), "size_bytes": len(plan)}
    engine.with_suffix(".json").write_bytes(msgspec.json.encode(record))
    built = build(new, old)
    assert built.how == "built"
    assert re.match(r"decoder\.onnx: the engine does not load: .*not compatible", built.why)
    assert "was deserialised" in tensorrt_device.problems.pop()


def test_weights_that_tensorrt_refuses(tensorrt_device: Any, old: Path, tmp_path: Path) -> None:
    build(old)
    built = build(write_tiny_bundle(tmp_path / "nan", radii=(np.nan, 9.0, 14.0)), old)
    assert built.how == "built"
    assert built.why == "decoder.onnx: its weights could not be set: weights squares hold NaN or infinity"


def test_other_settings_are_another_engine(tensorrt_device: Any, old: Path, new: Path) -> None:
    build(old)
    built = build(new, old, points_per_batch=3)
    assert (built.how, tensorrt_device.refitted) == ("built", 0)
    assert built.why.endswith("decoder.engine: engine built for other sizes or with other options")
    build(old, points_per_batch=3)
    (new / "engines" / built.engine.parent.name / "decoder.json").unlink()
    assert build(new, old, points_per_batch=3).how == "refitted"


@pytest.mark.parametrize("version", ["11.3.0.14", "11.3"])
def test_a_version_whose_refittable_engines_are_wrong(
    monkeypatch: pytest.MonkeyPatch, tensorrt_device: Any, old: Path, new: Path, version: str
) -> None:
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", version)
    assert check_plan(build(old).engine).flags == []
    built = build(new, old)
    assert (built.how, built.why) == ("built", f"TensorRT {version} may build wrong engines when they can be refitted")


def test_places_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tensorrt_device: Any, old: Path, new: Path, feeds: Feeds, tmp_path: Path
) -> None:
    """Neither bundle can be: both have their engines in the user's cache."""
    made = Path.mkdir

    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        if self in (old / "engines", new / "engines"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        made(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    for bundle, older, how in ((old, None, "built"), (new, old, "refitted")):
        built = build(bundle, older)
        assert (built.how, built.engine.parents[2]) == (how, tmp_path / "cache/maskrt/engines")
        assert built.engine.parents[1].name.startswith(f"{bundle.name}-")
        assert np.allclose(on_gpu(bundle, feeds), on_cpu(bundle, feeds), atol=1e-4)


def test_a_full_disk_keeps_both(
    monkeypatch: pytest.MonkeyPatch, tensorrt_device: Any, old: Path, new: Path, feeds: Feeds
) -> None:
    build(old)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("maskrt.runtime.files.os.fsync", full)
        with pytest.raises(MaskrtError, match="No space left on device: free space and run the command again"):
            build(new, old)
    assert [file.name for file in (new / "engines").glob("*/*")] == []
    assert np.allclose(on_gpu(old, feeds), on_cpu(old, feeds), atol=1e-4)
    assert build(new, old).how == "refitted"


def test_an_old_bundle_that_is_none(tensorrt_device: Any, new: Path, tmp_path: Path, maskrt: Maskrt) -> None:
    (tmp_path / "link").symlink_to(new)
    for older, reason in (
        (tmp_path, f"{tmp_path} is not a bundle: it has no bundle.json; make one with maskrt export"),
        (new, f"--refit-from {new} is the bundle itself: name the one it was trained from"),
        (tmp_path / "link", f"--refit-from {tmp_path / 'link'} is the bundle itself: name the one it was trained from"),
    ):
        code, told, error = maskrt("build", new, "--engine", "tensorrt", "--refit-from", older)
        assert (code, told, error) == (2, "", f"error: {reason}\n")
    assert tensorrt_device.built == 0
