"""Segmenters that the package segmentation_models_pytorch builds itself: any of its architectures and encoders.

The package is asked for the architecture alone: it downloads no weights, and nothing is sent.
"""

import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from maskrt.export.architectures.networks import Architecture
from maskrt.runtime.errors import CheckpointError, InputError

PACKAGE = "smp"  # its customary name, and the kind's
MULTIPLE = 32  # no encoder halves a picture more than five times


def packaged(model: str) -> Architecture:
    """Return the architecture of "ARCH/ENCODER", such as Unet/resnet34, in the package's own sizes.

    Raises:
        InputError: the package is not installed, or knows no such architecture or encoder.
    """
    name, _, encoder = model.partition("/")
    package = _package()
    known = {key.lower(): key for key in _names(package)}
    if name.lower() not in known:
        raise InputError(f"{PACKAGE}:{model}: no architecture {name!r}; known: {', '.join(known.values())}")
    make = getattr(package, known[name.lower()])

    def make_with(classes: int) -> nn.Module:
        try:
            # Not on "meta": Segformer's encoder reads a number off a tensor, so it cannot be made without memory.
            with torch.device("cpu"):
                network: nn.Module = make(encoder, encoder_weights=None, classes=classes, activation=None)
        except Exception as error:  # the package raises KeyError, ValueError and RuntimeError, timm others
            raise CheckpointError(f"{PACKAGE}:{model} cannot be built: {_line(error)}") from error
        return network

    try:
        sample = make_with(1)
    except CheckpointError as error:
        raise InputError(f"{error}: give an encoder that the installed segmentation_models_pytorch knows") from error
    head = [key for key in sample.state_dict() if key.startswith("segmentation_head.") and key.endswith(".weight")][-1]

    def build(state: Mapping[str, Tensor]) -> nn.Module:
        if head not in state:
            raise CheckpointError(f"not {PACKAGE}:{model}: the checkpoint has no {head}")
        return make_with(int(state[head].shape[0]))

    return Architecture(build, anchor=head, multiple=MULTIPLE)


def _package() -> ModuleType:
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the import: its hub client would look for newer files
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise InputError(
            f"{PACKAGE}:ARCH/ENCODER needs segmentation_models_pytorch ({_line(error)}): install maskrt[smp]"
        ) from error
    except RuntimeError as error:  # torchvision, where it was built for another PyTorch
        raise InputError(
            f"segmentation_models_pytorch cannot be imported: {_line(error)}: install the torchvision of this PyTorch"
        ) from error
    module: ModuleType = segmentation_models_pytorch
    return module


def _names(package: Any) -> list[str]:
    """Return the names of the package's architectures: the classes of networks that it shows."""
    shown = {name: getattr(package, name) for name in dir(package)}
    return [name for name, value in shown.items() if isinstance(value, type) and issubclass(value, nn.Module)]


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
