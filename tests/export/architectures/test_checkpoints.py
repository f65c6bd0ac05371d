"""Checkpoints: the forms that are read, and the errors for those that cannot be used."""

import os
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

import safetensors.torch

from maskrt.export.architectures.checkpoints import load_state_dict, load_strict
from maskrt.export.architectures.deeplab import build_deeplabv3plus
from maskrt.export.architectures.kinds import KNOWN, load_architecture, split_kind
from maskrt.export.architectures.sam import SAM_CONFIGS, build_sam
from maskrt.export.architectures.torchvision_deeplab import torchvision_deeplabv3_for
from maskrt.runtime.errors import CheckpointError, InputError

STATE = {"a.weight": torch.arange(4.0), "a.bias": torch.ones(1)}


class Code:
    """Unpickling this would run a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/maskrt-was-here",)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        OrderedDict(STATE),
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE},
        {"model_state_dict": STATE, "best": 0.5},
        {"model": {"state_dict": STATE}},
        {f"module.{key}": value for key, value in STATE.items()},
        {"state_dict": {f"model.module.{key}": value for key, value in STATE.items()}},
    ],
)
def test_wrappers_and_prefixes(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "c.pth")
    state = load_state_dict(tmp_path / "c.pth")
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[key], value) for key, value in STATE.items())


def test_a_prefix_of_some_keys_stays(tmp_path: Path) -> None:
    torch.save({"model.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "c.pth")
    assert set(load_state_dict(tmp_path / "c.pth")) == {"model.a", "b"}


def test_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "c.safetensors")
    assert torch.equal(load_state_dict(tmp_path / "c.safetensors")["a.weight"], STATE["a.weight"])


def test_old_format(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    assert load_state_dict(tmp_path / "c.pth").keys() == STATE.keys()


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_state_dict(tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_state_dict(tmp_path)


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
        load_state_dict(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused(tmp_path: Path, zipped: bool) -> None:
    torch.save({"a": Code()}, tmp_path / "c.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"refused: it holds pickled objects.*torch\.save\(model\.state_dict"):
        load_state_dict(tmp_path / "c.pth")
    assert not Path("/tmp/maskrt-was-here").exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="refused: it holds pickled objects"):
        load_state_dict(tmp_path / "c.pth")


def test_torchscript(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.ones(1)), tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="is a TorchScript program"):
        load_state_dict(tmp_path / "c.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [([torch.ones(1)], "but list"), (torch.ones(1), "but Tensor"), ({}, "but dict"), ({"a": 1}, "'a' is a int")],
)
def test_not_a_state_dict(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=f"not a state dict.*{message}"):
        load_state_dict(tmp_path / "c.pth")


def test_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "c.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match=r"c\.pth"):
        load_state_dict(tmp_path / "c.pth")


def test_strict_names_three_of_each() -> None:
    module = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(4)))
    state = {key: value for key, value in module.state_dict().items() if not key.endswith("bias")}
    state |= {"0.weight": torch.zeros(3, 2), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        load_strict(module, state, "this", {})
    assert str(caught.value) == (
        "this does not fit: missing: 0.bias, 1.bias, 2.bias and 1 more; unexpected: extra; "
        "wrong shape: 0.weight is [3, 2], expected [2, 2]"
    )


def test_the_right_kind_is_named(tmp_path: Path) -> None:
    torch.save(build_deeplabv3plus("resnet101", 2).state_dict(), tmp_path / "c.pth")
    for wrong in ("deeplabv3plus_resnet50", "deeplabv3plus_mobilenet_v2", "torchvision_deeplabv3_resnet50"):
        with pytest.raises(CheckpointError, match="it fits deeplabv3plus_resnet101: put that in front"):
            load_architecture(wrong, tmp_path / "c.pth")


def test_the_right_sam_is_named() -> None:
    with torch.device("meta"):
        large, base = build_sam(SAM_CONFIGS["vit_l"]), build_sam(SAM_CONFIGS["vit_b"])
    with pytest.raises(CheckpointError, match="it fits vit_l"):
        load_strict(base, large.state_dict(), "sam.pth", KNOWN)


def test_auxiliary_head_is_dropped(tmp_path: Path) -> None:
    model = torchvision_deeplabv3_for("resnet50", {"classifier.4.weight": torch.empty(3, 256, 1, 1)})
    state = model.state_dict() | {"aux_classifier.4.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "c.pth")
    loaded = load_architecture("torchvision_deeplabv3_resnet50", tmp_path / "c.pth")
    assert not loaded.training
    torch.save(state | {"other.bias": torch.zeros(3)}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=r"unexpected: other\.bias$"):
        load_architecture("torchvision_deeplabv3_resnet50", tmp_path / "c.pth")


def test_split_kind() -> None:
    assert split_kind("onnx:C:/a b.onnx", {"onnx": 0}, "segmenter") == ("onnx", Path("C:/a b.onnx"))
    for text in ("a.onnx", "onnx:", ""):
        with pytest.raises(InputError, match="is not KIND:FILE; kinds: onnx"):
            split_kind(text, {"onnx": 0}, "segmenter")
    with pytest.raises(InputError, match="unknown segmenter kind 'unet'; known: onnx"):
        split_kind("unet:a.pth", {"onnx": 0}, "segmenter")
