"""Where engines are kept: several GPUs', what cannot be written, what others could have put there."""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_files import build, change_record, run

import maskrt.kernels.device  # noqa: F401 - Numba looks for CUDA's bindings before the stand-in's are there
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.engine_build.builder import BuildSettings, EngineBuilder
from maskrt.runtime.engines.tensorrt.store import EngineFiles, files_of
from maskrt.runtime.errors import BundleError, MaskrtError

Maskrt = Callable[..., tuple[int, str, str]]


def test_only_the_owner_can_read_an_engine(tensorrt_device: Any, bundle: Path) -> None:
    place = build(bundle)
    assert place.engine.parent.parent == bundle / "engines"
    assert place.engine.parent.name.startswith("NVIDIA_L4-")
    for folder in (place.engine.parent, bundle / "engines"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(place.engine.parent.iterdir())
    assert {file.name for file in files} == {"segmenter.engine", "segmenter.json", "timing.cache"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_bundle_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tensorrt_device: Any, bundle: Path, tmp_path: Path, maskrt: Maskrt
) -> None:
    made = Path.mkdir

    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        if self == bundle / "engines":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        made(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", refuse)
    code, told, _ = maskrt("build", bundle, "--engine", "tensorrt")
    folder = tmp_path / "cache/maskrt/engines"
    assert code == 0
    assert told.count(f": built: {folder}/ward-") == 3
    assert not (bundle / "engines").exists()
    run(bundle)
    # An engine in the bundle that is not what it says it is does not hide it.
    in_bundle, in_cache = files_of(
        bundle / "segmenter.onnx", EngineBuilder(open_bundle(bundle), BuildSettings()).target
    )
    os.mkdir(bundle / "engines", 0o700)
    shutil.copytree(in_cache.place.folder, in_bundle.place.folder)
    change_record(in_bundle, lambda r: r["target"].update(gpu="NVIDIA T4"))
    run(bundle)


def test_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch, tensorrt_device: Any, bundle: Path) -> None:
    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(MaskrtError, match=r"cannot write .*segmenter\.engine: Permission denied: make it writable"):
        build(bundle)
    assert tensorrt_device.built == 0  # it is known before the minutes that a build takes


@pytest.mark.parametrize("after", [0, 1])
def test_a_full_disk_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, tensorrt_device: Any, bundle: Path, after: int
) -> None:
    """With the engine, or with the record after it."""
    place = build(bundle)
    before = {file.name: file.read_bytes() for file in place.engine.parent.iterdir()}

    written = iter(range(after))

    def full(_: int) -> None:
        if next(written, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("maskrt.runtime.files.os.fsync", full)
        with pytest.raises(MaskrtError, match="No space left on device: free space and run the command again"):
            build(bundle, workspace_mb=100)
    assert {file.name: file.read_bytes() for file in place.engine.parent.iterdir()} == before
    run(bundle)


def test_two_gpus_share_a_bundle(tensorrt_device: Any, bundle: Path) -> None:
    """Neither replaces the other's engines or timings; each finds its own again."""
    first, timed = build(bundle), tensorrt_device.kernels_timed
    kept = {file: file.read_bytes() for file in first.place.folder.iterdir()}
    tensorrt_device.name = "NVIDIA T4"
    with pytest.raises(
        BundleError,
        match=rf"{first.engine}: engine built for TensorRT .* on NVIDIA L4 .*, found TensorRT .* on NVIDIA T4",
    ):
        run(bundle)
    second = build(bundle)
    assert (second.place.folder != first.place.folder, tensorrt_device.kernels_timed) == (True, 2 * timed)
    run(bundle)
    tensorrt_device.name = "NVIDIA L4"
    run(bundle)
    build(bundle)
    assert tensorrt_device.built == 2
    assert {file: file.read_bytes() for file in first.place.folder.iterdir()} == kept


def test_what_an_update_left_behind_is_named_first(tensorrt_device: Any, bundle: Path) -> None:
    for name, driver in (("NVIDIA A2", 13000), ("NVIDIA L4", 12080)):
        tensorrt_device.name, tensorrt_device.driver = name, driver
        build(bundle)
    tensorrt_device.driver = 13000
    with pytest.raises(
        BundleError, match=r"on NVIDIA L4 \(8\.9\), driver for CUDA 12\.8, found .* CUDA 13\.0: run maskrt build"
    ):
        run(bundle)
    assert tensorrt_device.deserialised == 0


def link_engine(files: EngineFiles) -> None:
    files.engine.rename(files.engine.with_name("elsewhere"))
    files.engine.symlink_to("elsewhere")


def link_folder(files: EngineFiles) -> None:
    files.place.folder.rename(files.place.root / "elsewhere")
    files.place.folder.symlink_to("elsewhere")


def test_a_file_where_the_engines_would_be(tensorrt_device: Any, bundle: Path, tmp_path: Path) -> None:
    (bundle / "engines").write_text("in the way")
    assert build(bundle).engine.is_relative_to(tmp_path / "cache/maskrt/engines")
    run(bundle)


PLANTED: dict[str, tuple[Callable[[EngineFiles], Any], str]] = {
    "an open folder": (lambda files: files.place.folder.chmod(0o777), "others than its owner can change it"),
    "an open folder above": (lambda files: files.place.root.chmod(0o775), "others than its owner can change it"),
    "a link": (link_engine, "cannot be read"),
    "a linked folder": (link_folder, "a link or a file where a folder should be"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_what_others_could_have_put_there(tensorrt_device: Any, bundle: Path, case: str) -> None:
    spoil, reason = PLANTED[case]
    files = build(bundle)
    spoil(files)
    with pytest.raises(BundleError, match=rf"{reason}.*: run maskrt build {bundle} --engine tensorrt$"):
        run(bundle)
    assert tensorrt_device.deserialised == 0
    again = build(bundle)  # beside it, or in the user's cache where the folder cannot be trusted
    assert (again.place == files.place) == (case == "a link")
    run(bundle)


def test_another_users_engine(monkeypatch: pytest.MonkeyPatch, tensorrt_device: Any, bundle: Path) -> None:
    owner = build(bundle).engine.stat().st_uid
    monkeypatch.setattr("maskrt.runtime.engines.tensorrt.folders.trusted_owners", lambda: (owner + 1,))
    with pytest.raises(BundleError, match="others than its owner can change it"):
        run(bundle)
    with pytest.raises(MaskrtError, match=r"cannot write .*: others than its owner can change it: make it writable"):
        build(bundle)
