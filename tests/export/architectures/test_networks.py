"""The network in a checkpoint: it is found under any prefix, whole or not at all, and what is left out is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_sam

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

import safetensors.torch

from maskrt.export.architectures.crm import CrmConfig, build_crm
from maskrt.export.architectures.deeplab import build_deeplabv3plus
from maskrt.export.architectures.kinds import KNOWN, load_architecture, sam_architecture, split_kind
from maskrt.export.architectures.networks import Architecture, load_into, load_network
from maskrt.export.architectures.sam import SAM_CONFIGS, build_sam
from maskrt.export.architectures.torchvision_deeplab import torchvision_deeplabv3_for
from maskrt.export.architectures.unet import UNet, unet_for
from maskrt.runtime.errors import CheckpointError, InputError

State = dict[str, Any]
KIND = "deeplabv3plus_mobilenet_v2"
IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return build_deeplabv3plus("mobilenet_v2", 2, decoder_channels=16, width_mult=0.25).eval()


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Any], tuple[Any, list[str]]]:
    """load(content) saves it and loads the DeepLabV3+ in it; returns the network and the lines reported."""

    def save_and_load(content: Any) -> tuple[Any, list[str]]:
        lines: list[str] = []
        torch.save(content, tmp_path / "c.pth")
        return load_architecture(KIND, tmp_path / "c.pth", lines.append), lines

    return save_and_load


BUFFERS = {"mean": torch.zeros(1, 3, 1, 1), "std": torch.ones(1, 3, 1, 1)}
EVERYDAY: dict[str, tuple[Callable[[State], Any], list[str]]] = {
    "plain": (lambda own: own, []),
    "lightning": (lambda own: {"state_dict": under("model.", own), "epoch": 3, "lr_schedulers": [{"last": 1}]}, []),
    "data parallel": (lambda own: {"model_state_dict": under("module.", own), "best": 0.5}, []),
    "in a tuple": (lambda own: (own, 3), []),
    "net": (lambda own: {"net": own, "acc": 0.5}, []),
    "compiled": (lambda own: under("_orig_mod.", own), []),
    "nested": (lambda own: {"model": {"state_dict": under("net.module.model._orig_mod.", own)}}, []),
    "compiled encoder": (lambda own: {k.replace("encoder.", "encoder._orig_mod."): v for k, v in own.items()}, []),
    "swa": (lambda own: {"n_averaged": torch.tensor(5), **under("module.", own)}, ["n_averaged"]),
    "buffers": (lambda own: {"state_dict": {**BUFFERS, **under("model.", own)}}, ["state_dict.mean", "state_dict.std"]),
    "buffers beside": (lambda own: {**BUFFERS, **own}, ["mean", "std"]),
    "loss": (lambda own: {**under("model.", own), "criterion.weight": torch.ones(2)}, ["criterion.weight"]),
    "loss beside": (lambda own: {**own, "loss_fn.weight": torch.ones(2)}, ["loss_fn.weight"]),
    "the same twice": (lambda own: {**under("model.", own), **under("ema.", own)}, ["ema.encoder.features"]),
    "optimiser": (
        lambda own: {
            "model": own,
            "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1}]},
        },
        ["optimizer.state.0.exp_avg"],
    ),
    "an incomplete average": (
        lambda own: {**under("model.", own), "ema.segmentation_head.0.weight": torch.ones(2)},
        ["ema.segmentation_head.0.weight"],
    ),
}


@pytest.mark.parametrize("form", EVERYDAY)
def test_everyday_checkpoints(model: Any, load: Any, form: str) -> None:
    write, left_out = EVERYDAY[form]
    loaded, lines = load(write(dict(model.state_dict())))
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(IMAGE), model(IMAGE))
    assert len(lines) == bool(left_out)
    assert all(name in lines[0] for name in left_out)


def test_a_whole_line(model: Any, load: Any) -> None:
    _, lines = load({"state_dict": {**BUFFERS, **under("net.", model.state_dict())}})
    assert lines == [
        "c.pth: took the network under the prefix state_dict.net.; left out: state_dict.mean, state_dict.std"
    ]


def test_two_networks_that_differ(model: Any, load: Any) -> None:
    own = model.state_dict()
    average = {key: value * 0.5 if value.is_floating_point() else value for key, value in own.items()}
    for first, second in (("model.", "ema_model."), ("model.", "ema."), ("state_dict.", "state_dict_ema.module.")):
        with pytest.raises(
            CheckpointError, match=f"2 whole networks that differ, under the prefixes '{first}' and '{second}'"
        ):
            load({**under(first, own), **under(second, average)})
    with pytest.raises(CheckpointError, match=r"differ, under the prefixes '' and 'ema_model\.'"):
        load({**own, **under("ema_model.", average)})


def test_what_could_be_a_layer_is_not_left_out(model: Any, load: Any) -> None:
    own = model.state_dict()
    with pytest.raises(CheckpointError, match=r"unexpected: attention\.weight$"):
        load({**own, "attention.weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match=r"under the prefix model\.: unexpected: encoder\.mean$"):
        load(under("model.", {**own, "encoder.mean": torch.ones(2)}))


def test_a_deeper_network_is_not_taken_for_a_shallower_one(tmp_path: Path) -> None:
    """Every key of a ResNet-50 is in a ResNet-101, with its shape."""
    torch.save(build_deeplabv3plus("resnet101", 2, 16, width_mult=0.125).state_dict(), tmp_path / "c.pth")
    with pytest.raises(
        CheckpointError, match=r"unexpected: encoder\.layer3\.6.*; it fits deeplabv3plus_resnet101: put"
    ):
        load_architecture("deeplabv3plus_resnet50", tmp_path / "c.pth")


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_weights_of_other_types(model: Any, load: Any, kind: str) -> None:
    dtype = getattr(torch, kind)
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    loaded, lines = load(state)
    how = "rounded" if kind == "float64" else "converted exactly"
    assert lines == [f"c.pth: weights of {kind}, {how} to float32"]
    assert all(torch.equal(v.to(torch.float32), loaded.state_dict()[k].to(torch.float32)) for k, v in state.items())


def test_weights_that_are_no_numbers(model: Any, load: Any) -> None:
    key = "decoder.block1.0.weight"
    for value in (torch.nan, torch.inf):
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        state[key].view(-1)[3] = value
        with pytest.raises(
            CheckpointError, match=rf"{key} holds NaN or infinity in 1 of \d+ places: training diverged"
        ):
            load(state)
    state = model.state_dict()
    with pytest.raises(CheckpointError, match=f"{key} is int8, expected dense floating-point"):
        load({**state, key: state[key].to(torch.int8)})
    with pytest.raises(CheckpointError, match=f"{key} is sparse_coo, expected dense"):
        load({**state, key: state[key].to_sparse()})
    with pytest.raises(CheckpointError, match=f"{key} holds NaN or infinity"):
        load({**state, key: state[key].double() * 1e300})


def test_no_counters_of_batches(model: Any, load: Any) -> None:
    loaded, lines = load({k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")})
    assert lines == []
    with torch.no_grad():
        assert torch.equal(loaded(IMAGE), model(IMAGE))


def test_a_network_that_is_not_whole(model: Any, load: Any) -> None:
    own = dict(model.state_dict())
    del own["decoder.block1.0.weight"], own["encoder.features.0.1.running_mean"]
    with pytest.raises(CheckpointError) as caught:
        load(under("model.", {**own, "decoder.block2.1.bias": torch.zeros(3)}))
    assert str(caught.value).endswith(
        "does not fit under the prefix model.: missing: encoder.features.0.1.running_mean, decoder.block1.0.weight; "
        "wrong shape: decoder.block2.1.bias is [3], expected [16]"
    )
    with pytest.raises(CheckpointError, match=r"no prefix holds segmentation_head\.0\.weight; it has keys: a, b"):
        load({"a": torch.ones(1), "b": torch.ones(1)})
    with pytest.raises(CheckpointError, match="its weights have sizes that no such network has"):
        load({"segmentation_head.0.weight": torch.ones(1)})


NETWORKS: dict[str, tuple[Callable[[], Any], Architecture]] = {
    "unet": (lambda: UNet(1, 2), KNOWN["unet"]),
    "crm": (
        lambda: build_crm(CrmConfig(width=4, blocks=(1, 1, 1, 0), hidden=4, layers=1)),
        Architecture(
            lambda _: build_crm(CrmConfig(width=4, blocks=(1, 1, 1, 0), hidden=4, layers=1)), "imnet.layers.0.weight"
        ),
    ),
    "sam": (lambda: build_sam(tiny_sam.TINY_SAM), sam_architecture(tiny_sam.TINY_SAM)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("prefix", ["sam.", "model.module.", "_orig_mod.net."])
def test_every_architecture_is_found(tmp_path: Path, name: str, prefix: str) -> None:
    build, architecture = NETWORKS[name]
    lines: list[str] = []
    state = build().state_dict()
    torch.save(
        {"state_dict": {**under(prefix, state), "criterion.weight": torch.ones(2)}, "epoch": 3}, tmp_path / "c.pth"
    )
    loaded = load_network(tmp_path / "c.pth", name, architecture, {}, lines.append).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in state.items())
    assert "left out: state_dict.criterion.weight" in lines[0]


def test_the_right_kind_is_named(tmp_path: Path) -> None:
    torch.save({"model": build_deeplabv3plus("resnet101", 2, 16, width_mult=0.125).state_dict()}, tmp_path / "c.pth")
    for wrong in ("deeplabv3plus_mobilenet_v2", "torchvision_deeplabv3_resnet50"):
        with pytest.raises(CheckpointError, match="it fits deeplabv3plus_resnet101: put that in front"):
            load_architecture(wrong, tmp_path / "c.pth")


def test_the_right_sam_is_named(tmp_path: Path) -> None:
    torch.save(under("sam.", build_sam(SAM_CONFIGS["vit_b"]).half().state_dict()), tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="it fits vit_b: put that in front"):
        load_network(tmp_path / "c.pth", "custom", sam_architecture(tiny_sam.TINY_SAM), KNOWN)


def test_auxiliary_head_is_left_out(tmp_path: Path) -> None:
    model = torchvision_deeplabv3_for("resnet50", {"classifier.4.weight": torch.empty(3, 256, 1, 1)})
    lines: list[str] = []
    state = model.state_dict() | {"aux_classifier.4.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "c.pth")
    loaded = load_architecture("torchvision_deeplabv3_resnet50", tmp_path / "c.pth", lines.append)
    assert not loaded.training
    assert lines == ["c.pth: took the network; left out: aux_classifier.4.bias"]
    torch.save(state | {"other.bias": torch.zeros(3)}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=r"unexpected: other\.bias$"):
        load_architecture("torchvision_deeplabv3_resnet50", tmp_path / "c.pth")


def test_loading_into_a_network_that_trains(tmp_path: Path) -> None:
    network, other = UNet(3, 2).train(), UNet(3, 2)
    safetensors.torch.save_file(other.state_dict(), tmp_path / "w.safetensors")
    load_into(network, tmp_path / "w.safetensors")
    assert network.training
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in other.state_dict().items())
    assert unet_for(network.state_dict()).classes == 1


def test_split_kind() -> None:
    assert split_kind("onnx:C:/a b.onnx", {"onnx": 0}, "segmenter") == ("onnx", Path("C:/a b.onnx"))
    assert split_kind("smp:Unet/resnet34:C:/a.pth", {"smp": 0}, "segmenter") == ("smp:Unet/resnet34", Path("C:/a.pth"))
    for text in ("a.onnx", "onnx:", ""):
        with pytest.raises(InputError, match="is not KIND:FILE; kinds: onnx"):
            split_kind(text, {"onnx": 0}, "segmenter")
    for text in ("smp:a.pth", "smp:Unet/resnet34:", "smp:Unet:a.pth"):
        with pytest.raises(InputError, match="is not smp:ARCH/ENCODER:FILE"):
            split_kind(text, {"smp": 0}, "segmenter")
    with pytest.raises(InputError, match="unknown segmenter kind 'unet'; known: onnx"):
        split_kind("unet:a.pth", {"onnx": 0}, "segmenter")
