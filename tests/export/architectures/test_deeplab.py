"""The architectures are those of segmentation_models_pytorch 0.6.0 and torchvision 0.28.0.

The digests were taken from those packages' own models, whose outputs equalled ours to 1e-6 of the largest logit on
random weights at the same time.
"""

import hashlib

import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

from typing import Any

from maskrt.export.architectures.backbones import MobileNetV2, mobilenet_channels
from maskrt.export.architectures.deeplab import ENCODERS, build_deeplabv3plus, deeplabv3plus_for
from maskrt.export.architectures.torchvision_deeplab import TorchvisionDeepLabV3, torchvision_deeplabv3_for
from maskrt.runtime.errors import CheckpointError, InputError

# (encoder, classes, decoder channels) -> number of "key shape" lines, sha256 of them sorted and joined by newlines
SMP_DIGESTS = {
    ("resnet50", 2, 256): (379, "aed514d2128cc4f532e33ab68203cca6548294a7629ec9f098addf398cee9383"),
    ("resnet50", 5, 64): (379, "7fceaeebe2a7747032382dce4304cc47f4196fed4f8c7f5909204e75ee9a6e78"),
    ("resnet101", 2, 256): (685, "4b3e6cf58bb55783da27994601230f211593a4151fb12023cb4219efaf249b50"),
    ("resnet101", 5, 64): (685, "ad59eaedfef28d124499b3458cce8b003a9382f67bc8b51a68715f1c3054685c"),
    ("mobilenet_v2", 2, 256): (373, "da96fc47f3f856634487d20aa5602033b99e8a6229b38e9d32ff185eadb5a8f4"),
    ("mobilenet_v2", 5, 64): (373, "3abb8a2063ae2ca0e297658976218e7056f53534994efcb84a6bbd48530c7690"),
}
TORCHVISION_DIGESTS = {  # four classes, without the auxiliary head
    "resnet50": (362, "f28ee6cacef01f319808764bb26c57d24426bff3123642cd99a27c97e839ef6f"),
    "resnet101": (668, "36903ce8b14cb3515423ab3f852a4e40c9849401bfa035e81b5d4829bc0b0a2f"),
}


def digest(model: Any) -> tuple[int, str]:
    lines = sorted(f"{key} {tuple(value.shape)}" for key, value in model.state_dict().items())
    return len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize(("encoder", "classes", "channels"), SMP_DIGESTS)
def test_keys_are_those_of_segmentation_models_pytorch(encoder: str, classes: int, channels: int) -> None:
    with torch.device("meta"):
        model = build_deeplabv3plus(encoder, classes, channels)
    assert digest(model) == SMP_DIGESTS[encoder, classes, channels]


@pytest.mark.parametrize("encoder", TORCHVISION_DIGESTS)
def test_keys_are_those_of_torchvision(encoder: str) -> None:
    with torch.device("meta"):
        model = torchvision_deeplabv3_for(encoder, {"classifier.4.weight": torch.empty(4, 256, 1, 1)})
    assert digest(model) == TORCHVISION_DIGESTS[encoder]


def _sizes(encoder: str) -> dict[str, Any]:
    """A state dict without values: building from it skips the initialisation for training, which is slow."""
    with torch.device("meta"):
        return build_deeplabv3plus(encoder, 3, decoder_channels=32).state_dict()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_logits_have_the_size_of_the_input(encoder: str) -> None:
    with torch.no_grad():
        assert deeplabv3plus_for(encoder, _sizes(encoder)).eval()(torch.zeros(2, 3, 32, 48)).shape == (2, 3, 32, 48)


def test_torchvision_takes_any_size() -> None:
    with torch.no_grad():
        assert TorchvisionDeepLabV3((1, 1, 1, 1), 4).eval()(torch.zeros(1, 3, 65, 49)).shape == (1, 4, 65, 49)


@pytest.mark.parametrize(
    ("encoder", "width"), [("resnet50", 1.0), ("resnet101", 0.25), ("mobilenet_v2", 0.35), ("mobilenet_v2", 1.4)]
)
def test_sizes_are_read_from_the_state_dict(encoder: str, width: float) -> None:
    with torch.device("meta"):
        model = build_deeplabv3plus(encoder, 7, decoder_channels=48, width_mult=width)
        again = deeplabv3plus_for(encoder, model.state_dict())
    assert digest(again) == digest(model)


def test_mobilenet_widths() -> None:
    """Values of torchvision.models.mobilenetv2: rounding never takes off more than a tenth."""
    assert mobilenet_channels() == (32, 16, 24, 32, 64, 96, 160, 320, 1280)
    assert mobilenet_channels(0.1) == (8, 8, 8, 8, 8, 16, 16, 32, 1280)
    assert mobilenet_channels(1.4) == (48, 24, 32, 48, 88, 136, 224, 448, 1792)


def test_mobilenet_strides() -> None:
    low, high = MobileNetV2(mobilenet_channels(0.25)).eval()(torch.zeros(1, 3, 64, 64))
    assert (low.shape[2:], high.shape[2:]) == ((16, 16), (4, 4))


def test_refusals() -> None:
    with pytest.raises(InputError, match="unknown encoder 'resnet18'"):
        build_deeplabv3plus("resnet18", 2)
    with pytest.raises(CheckpointError, match=r"no segmentation_head\.0\.weight"):
        deeplabv3plus_for("resnet50", {})
    with pytest.raises(CheckpointError, match=r"no encoder\.conv1"):
        deeplabv3plus_for("resnet50", {"segmentation_head.0.weight": torch.zeros(2, 256, 1, 1)})
    with pytest.raises(CheckpointError, match=r"no encoder\.features"):
        deeplabv3plus_for("mobilenet_v2", {"segmentation_head.0.weight": torch.zeros(2, 256, 1, 1)})
    with pytest.raises(CheckpointError, match=r"no classifier\.4\.weight"):
        torchvision_deeplabv3_for("resnet50", {})
