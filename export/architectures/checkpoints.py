"""Read a checkpoint without running code from it, and load it into exactly the architecture it was made for."""

import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from maskrt.runtime.errors import CheckpointError, MaskrtError

StateDict = dict[str, Tensor]
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.")  # of DataParallel and of Lightning
SHOWN = 3
# The words of torch's restricted unpickler about a file that is whole but wants more than tensors.
CODE = re.compile(r"\bglobal\b|unrecognized function|unsupported class|class .* not", re.IGNORECASE)


def load_state_dict(path: Path) -> StateDict:
    """Read the tensors of a checkpoint by name onto the CPU, memory-mapped where the format allows it.

    The file is a .safetensors, or a state dict of torch.save, also inside {"state_dict": ...}, {"model": ...} or
    {"model_state_dict": ...}. A prefix `module.` or `model.` that every key has is removed.

    Raises:
        CheckpointError: the file is missing or truncated, holds pickled code, or is not a state dict.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist or is not a file: check the path")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return _without_prefix(_unwrapped(content, path))


def load_strict(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    known: Mapping[str, Callable[[Mapping[str, Tensor]], nn.Module]],
) -> None:
    """Load every tensor in place, or none.

    Args:
        source: the checkpoint's name in an error, such as "resnet50 from best.pth".
        known: KIND -> function that builds its architecture for a state dict; the error names the kinds that would fit.

    Raises:
        CheckpointError: keys are missing, unexpected or of another shape; the error names the first of each.
    """
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    complaints = [
        _listed("missing", (key for key in wanted if key not in state)),
        _listed("unexpected", (key for key in state if key not in wanted)),
        _listed(
            "wrong shape",
            (
                f"{key} is {list(state[key].shape)}, expected {list(shape)}"
                for key, shape in wanted.items()
                if key in state and tuple(state[key].shape) != shape
            ),
        ),
    ]
    found = "; ".join(filter(None, complaints))
    if found:
        raise CheckpointError(f"{source} does not fit: {found}{fitting_hint(state, known)}")
    module.load_state_dict(state)


def fitting_hint(state: Mapping[str, Tensor], known: Mapping[str, Callable[[Mapping[str, Tensor]], nn.Module]]) -> str:
    """Return the end of an error: the kinds whose architecture has exactly a state dict's keys and shapes, if any."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    kinds = []
    for kind, build in known.items():
        try:
            with torch.device("meta"):  # shapes without memory: ViT-H is 2.5 GB
                candidate = build(state).state_dict()
        except MaskrtError:
            continue
        if {key: tuple(value.shape) for key, value in candidate.items()} == shapes:
            kinds.append(kind)
    return f"; it fits {' or '.join(kinds)}: put that in front of the file name" if kinds else ""


def _read_safetensors(path: Path) -> Any:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file: {error}; copy it again") from error


def _read_torch(path: Path) -> Any:
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if zipped and not zipfile.is_zipfile(path):  # the directory at the end is missing
        raise CheckpointError(f"{path} is truncated: copy or download it again")
    if zipped and any(name.endswith("/constants.pkl") for name in zipfile.ZipFile(path).namelist()):
        raise CheckpointError(f"{path} is a TorchScript program: save the weights of the model that it was made from")
    try:
        # Files from before PyTorch 1.6 are not zip archives and cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if not CODE.search(str(error)):
            raise CheckpointError(f"{path} is damaged or was not written by torch.save: copy it again") from error
        raise CheckpointError(
            f"{path} is refused: it holds pickled objects, and unpickling them can run any code. Where you trust the "
            "file, load it and save the weights alone: torch.save(model.state_dict(), 'weights.pth')"
        ) from error
    except Exception as error:  # zip, IO, EOF and RuntimeError, depending on where the file is damaged
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): damaged, or not written by torch.save"
        ) from error


def _unwrapped(content: Any, path: Path) -> StateDict:
    for _ in WRAPPERS:
        if not isinstance(content, dict):
            break
        content = next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), content)
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} is not a state dict but {type(content).__name__}: save model.state_dict()")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path} is not a state dict: {key!r} is a {type(value).__name__}; looked in {', '.join(WRAPPERS)} too"
            )
    return dict(content)


def _without_prefix(state: StateDict) -> StateDict:
    prefix = next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in state)), None)
    if prefix is None:
        return state
    return _without_prefix({key.removeprefix(prefix): value for key, value in state.items()})


def _listed(what: str, items: Iterable[str]) -> str:
    found = list(items)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{what}: {', '.join(found[:SHOWN])}{more}" if found else ""
