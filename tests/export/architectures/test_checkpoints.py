"""Files of weights: the forms that are read, and the errors for those that are not."""

import argparse
import os
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

import safetensors.torch

from maskrt.export.architectures.checkpoints import read_tensors
from maskrt.runtime.errors import CheckpointError

STATE = {"a.weight": torch.arange(4.0), "a.bias": torch.ones(1)}


class Code:
    """Unpickling this would run a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/maskrt-was-here",)


def test_names_join_the_keys_on_the_way(tmp_path: Path) -> None:
    content = {"state_dict": {"model.a": torch.ones(1)}, "epoch": 3, "others": [{"b": torch.zeros(2)}], "loss": 0.5}
    torch.save(content, tmp_path / "c.pth")
    tensors = read_tensors(tmp_path / "c.pth")
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "state_dict.model.a": (1,),
        "others.0.b": (2,),
    }


def test_names_of_compiled_and_sharded_modules(tmp_path: Path) -> None:
    torch.save(
        {"_orig_mod.encoder._fsdp_wrapped_module.a": torch.ones(1), "my_orig_mod.b": torch.ones(1)}, tmp_path / "c"
    )
    assert set(read_tensors(tmp_path / "c")) == {"encoder.a", "my_orig_mod.b"}
    torch.save({"_orig_mod.a": torch.ones(1), "a": torch.zeros(1)}, tmp_path / "c")
    with pytest.raises(CheckpointError, match="holds a twice, once as a"):
        read_tensors(tmp_path / "c")


def test_a_container_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"a": torch.ones(1)}
    content["again"] = content
    torch.save(content, tmp_path / "c.pth")
    assert set(read_tensors(tmp_path / "c.pth")) == {"a"}


@pytest.mark.parametrize("name", ["c.pth", "c.safetensors", "c.bin"])
def test_the_content_and_not_the_name_tells_the_format(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    safetensors.torch.save_file(STATE, file)
    assert torch.equal(read_tensors(file)["a.weight"], STATE["a.weight"])
    torch.save(STATE, file)
    assert torch.equal(read_tensors(file)["a.weight"], STATE["a.weight"])


def _tar(file: Path) -> None:
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("pickle"))


def _zip(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weights.txt", "none")


def _compressed(file: Path) -> None:
    torch.save(STATE, file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_tar, "a tar archive, as PyTorch wrote before"),
        (_zip, "a zip archive without a state dict, which begins with 'weights.txt'"),
        (_compressed, "a compressed zip archive"),
        (
            lambda file: file.write_text("version https://git-lfs.github.com/spec/v1\n"),
            "pointer of Git LFS.*git lfs pull",
        ),
        (lambda file: file.write_text("<!DOCTYPE html><html>"), "a web page or XML"),
        (lambda file: file.write_text('{"weight_map": {"a": "model-00001.safetensors"}}'), "of a sharded checkpoint"),
        (lambda file: file.write_bytes(b"\x89HDF\r\n\x1a\n"), "an HDF5 file"),
        (lambda file: file.write_bytes(b"\x1f\x8b\x08\x00"), "compressed with gzip: unpack it"),
        (lambda file: file.write_bytes(b"\x08\x08\x12\x07pytorch"), "an ONNX file, not a state dict: put onnx:"),
        (os.mkfifo, "is not a plain file"),
        (Path.mkdir, "is not a plain file"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, write: Callable[[Path], Any], message: str) -> None:
    write(tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=message):
        read_tensors(tmp_path / "c.pth")


def test_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "c.safetensors")
    assert torch.equal(read_tensors(tmp_path / "c.safetensors")["a.weight"], STATE["a.weight"])


def test_old_format(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    assert read_tensors(tmp_path / "c.pth").keys() == STATE.keys()


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"c\.pth: no such file: check the path"):
        read_tensors(tmp_path / "c.pth")


@pytest.mark.parametrize("name", ["c.pth", "old.pth", "c.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.95, 0.999])
def test_truncated(tmp_path: Path, name: str, share: float) -> None:
    file, state = tmp_path / name, {f"layer{i}": torch.randn(50, 50) for i in range(4)}
    if name == "c.safetensors":
        safetensors.torch.save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=name == "c.pth")
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(CheckpointError) as caught:
        read_tensors(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused(tmp_path: Path, zipped: bool) -> None:
    torch.save({"a": Code()}, tmp_path / "c.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"refused: it holds pickled objects.*torch\.save\(model\.state_dict"):
        read_tensors(tmp_path / "c.pth")
    assert not Path("/tmp/maskrt-was-here").exists()


def test_a_class_in_a_checkpoint_is_named(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=r"holds pickled objects \(argparse\.Namespace\).*weights_only=False"):
        read_tensors(tmp_path / "c.pth")


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="refused: it holds pickled objects"):
        read_tensors(tmp_path / "c.pth")


def test_torchscript(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.ones(1)), tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="is a TorchScript program"):
        read_tensors(tmp_path / "c.pth")


@pytest.mark.parametrize(
    ("content", "found"),
    [([], "an empty list"), (torch.ones(1), "Tensor"), ({}, "an empty dict"), ({"a": 1}, "dict"), (3, "int")],
)
def test_no_tensors(tmp_path: Path, content: Any, found: str) -> None:
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=f"holds no named tensor but {found}: save the weights"):
        read_tensors(tmp_path / "c.pth")
