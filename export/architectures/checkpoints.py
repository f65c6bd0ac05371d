"""Read the tensors of a checkpoint without running code from it; the networks module finds the network among them.

The format is told by the file's content, never by its name.
"""

import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from maskrt.runtime.errors import CheckpointError, InputError
from maskrt.runtime.files import open_plain

StateDict = dict[str, Tensor]
MAX_NAME = 500  # letters of a tensor's full name: no network's comes near, what holds itself without end does
MAX_HEADER_BYTES = 100_000_000  # of a safetensors file, by its own definition
HEAD = 512  # bytes that tell the formats apart
ZIP = b"PK\x03\x04"
# Modules that PyTorch puts around others in place, and whose names are its own: compile, FSDP, checkpointing.
WRAPPED = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# The words of torch's restricted unpickler about a file that is whole but wants more than tensors.
CODE = re.compile(r"\bglobal\b|unrecognized function|unsupported class|class .* not", re.IGNORECASE)
CLASS = re.compile(r"GLOBAL (\S+)")
ALONE = "torch.save(model.state_dict(), 'weights.pth')"
# How the files begin that people give by mistake -> what they are, and what to give instead.
OTHERS: dict[bytes, str] = {
    b"version https://git-lfs": "a pointer of Git LFS, not the weights: fetch them with git lfs pull",
    b"<": "a web page or XML, not weights: download the file itself",
    b"{": "JSON, not weights: of a sharded checkpoint, load the model from all its files, then save its weights alone: "
    + ALONE,
    b"\x89HDF": "an HDF5 file, as Keras writes it: convert the weights to PyTorch",
    b"\x1f\x8b": "compressed with gzip: unpack it",
    b"\x93NUMPY": "a NumPy array, not a state dict: save the model's weights with " + ALONE,
}


def read_tensors(path: Path) -> StateDict:
    """Read every tensor of a checkpoint by its full name onto the CPU, memory-mapped where the format allows it.

    The file is a safetensors file or one of torch.save. The name joins the keys on the way to a tensor with dots, so
    {"state_dict": {"model.a": ...}} holds state_dict.model.a; what is no tensor is passed over. Wrappers that PyTorch
    puts into names by itself, such as `_orig_mod.`, are left out of them.

    Raises:
        CheckpointError: the file is missing or truncated, holds pickled code, or holds no tensor.
    """
    try:
        with open_plain(path) as file:
            head = file.read(HEAD)
    except InputError as error:
        raise CheckpointError(f"{error}: check the path") from error
    header_bytes = int.from_bytes(head[:8], "little")
    is_safetensors = head[8:9] == b"{" and header_bytes <= MAX_HEADER_BYTES
    content = _read_safetensors(path) if is_safetensors else _read_torch(path, head)
    tensors: StateDict = {}
    for name, tensor in _tensors(content, path):
        short = WRAPPED.sub("", name)
        if short in tensors:
            raise CheckpointError(f"{path} holds {short} twice, once as {name}: save the weights alone: {ALONE}")
        tensors[short] = tensor
    if not tensors:
        found = f"an empty {type(content).__name__}" if not content else type(content).__name__
        raise CheckpointError(f"{path} holds no named tensor but {found}: save the weights: {ALONE}")
    return tensors


def _tensors(content: Any, path: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in dicts, lists and tuples with their names. A container in several places counts once."""
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor) and name:
            yield name.removesuffix("."), value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            if len(name) > MAX_NAME:
                raise CheckpointError(f"{path} nests its values too deeply for a checkpoint: save the weights: {ALONE}")
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += reversed([(f"{name}{key}.", child) for key, child in items])


def _read_safetensors(path: Path) -> Any:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file: {error}; copy it again") from error


def _read_torch(path: Path, head: bytes) -> Any:
    zipped = head.startswith(ZIP)
    what = _zip_fault(path) if zipped else _other(head)
    if what is not None:
        raise CheckpointError(f"{path} is {what}")
    try:
        if path.suffix == ".safetensors":  # by whose name torch.load would go; what is no path cannot be mapped
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        # Files from before PyTorch 1.6 are not zip archives and cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if not CODE.search(str(error)):
            raise CheckpointError(f"{path} is damaged or was not written by torch.save: copy it again") from error
        classes = CLASS.search(str(error))
        held = f" ({classes[1]})" if classes else ""
        raise CheckpointError(
            f"{path} is refused: it holds pickled objects{held}, and unpickling them can run any code. Where you trust "
            "the file, load it with torch.load(FILE, weights_only=False) where it was made, and save the weights "
            f"alone: {ALONE}"
        ) from error
    except Exception as error:  # zip, IO, EOF and RuntimeError, depending on where the file is damaged
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): damaged, or not written by torch.save"
        ) from error


def _zip_fault(path: Path) -> str | None:
    """Return what a zip archive is, and the fix, unless torch.save wrote it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # the directory at the end is missing
        return "truncated: copy or download it again"
    names = [member.filename for member in members]
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program: save the weights of the model that it was made from"
    if not any(name.endswith("data.pkl") for name in names):
        first = names[0] if names else "nothing"
        return f"a zip archive without a state dict, which begins with {first!r}: give the file of weights"
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        return "a compressed zip archive, which torch.save does not write: unpack it, or save the weights again"
    return None


def _other(head: bytes) -> str | None:
    """Return what a file is by its first bytes, and the fix, where it is of another kind that is known."""
    if head[257:262] == b"ustar" or head[:4] == b"sys_":
        return f"a tar archive, as PyTorch wrote before 0.2: load it with that version, then {ALONE}"
    if b"onnx" in head[:64].lower() or head[:1] == b"\x08":
        return "an ONNX file, not a state dict: put onnx: in front of its name where a segmenter is asked for"
    text = head.lstrip()
    return next((what for start, what in OTHERS.items() if text.startswith(start)), None)
