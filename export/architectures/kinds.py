"""KIND:FILE, the name of every checkpoint, and the architectures behind the kinds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from maskrt.export.architectures.backbones import RESNET_BLOCKS
from maskrt.export.architectures.checkpoints import StateDict, fitting_hint, load_state_dict, load_strict
from maskrt.export.architectures.deeplab import ENCODERS, deeplabv3plus_for
from maskrt.export.architectures.sam import SAM_CONFIGS, SamConfig, build_sam
from maskrt.export.architectures.torchvision_deeplab import AUXILIARY, torchvision_deeplabv3_for
from maskrt.export.architectures.unet import unet_for
from maskrt.runtime.errors import CheckpointError, InputError


@dataclass(frozen=True)
class Architecture:
    """A segmenter's architecture. build: makes the network in the sizes of a state dict.

    multiple: the sides of the input must be multiples of it. ignored: a prefix of keys that the network has no place
    for and that are dropped before loading.
    """

    build: Callable[[Mapping[str, Tensor]], nn.Module]
    multiple: int = 1
    ignored: str | None = None


SEGMENTER_ARCHITECTURES = {
    **{f"deeplabv3plus_{name}": Architecture(partial(deeplabv3plus_for, name), multiple=16) for name in ENCODERS},
    **{
        f"torchvision_deeplabv3_{name}": Architecture(partial(torchvision_deeplabv3_for, name), ignored=AUXILIARY)
        for name in RESNET_BLOCKS
    },
}


def _sam_of(config: SamConfig, _: Mapping[str, Tensor]) -> nn.Module:
    sam: nn.Module = build_sam(config)
    return sam


# Every kind whose keys tell it apart: load_strict suggests one when a checkpoint was given under the wrong kind.
KNOWN: dict[str, Callable[[Mapping[str, Tensor]], nn.Module]] = {
    **{kind: architecture.build for kind, architecture in SEGMENTER_ARCHITECTURES.items()},
    **{kind: partial(_sam_of, config) for kind, config in SAM_CONFIGS.items()},
    "unet": unet_for,
}


def split_kind(text: str, kinds: Mapping[str, object], what: str) -> tuple[str, Path]:
    """Return KIND and FILE of "KIND:FILE".

    Raises:
        InputError: there is no colon or no file name, or the kind is not in `kinds`.
    """
    kind, colon, file = text.partition(":")
    if not colon or not file:
        raise InputError(f"{what} {text!r} is not KIND:FILE; kinds: {', '.join(kinds)}")
    if kind not in kinds:
        raise InputError(f"unknown {what} kind {kind!r}; known: {', '.join(kinds)}")
    return kind, Path(file)


def load_architecture(kind: str, file: Path) -> nn.Module:
    """Load a segmenter with a checkpoint's weights, in evaluation mode. It maps [N, 3, H, W] to logits [N, C, H, W].

    Raises:
        CheckpointError: the checkpoint is damaged, holds code or belongs to another architecture.
    """
    architecture = SEGMENTER_ARCHITECTURES[kind]
    state: StateDict = load_state_dict(file)
    if architecture.ignored is not None:
        state = {key: value for key, value in state.items() if not key.startswith(architecture.ignored)}
    try:
        model = architecture.build(state)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}{fitting_hint(state, KNOWN)}") from error
    load_strict(model, state, f"{kind}: {file}", KNOWN)
    return model.eval()
