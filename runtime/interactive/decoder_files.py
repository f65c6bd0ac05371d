"""Files of learnt decoders; each belongs to the bundle from whose decoder it started."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from maskrt.runtime.engines.model_file import Entry, read_checked
from maskrt.runtime.errors import BundleError
from maskrt.runtime.files import write_bytes

Weights = Mapping[str, NDArray[np.float32]]

KIND = "maskrt decoder"
_HEADER_BYTES = 1 << 20  # at most, for names and shapes; SAM's decoder takes 16 KB


def read_base(path: Path, entry: Entry | None = None) -> dict[str, NDArray[np.float32]]:
    """Read a bundle's weights.

    Args:
        entry: what the bundle says of the file.

    Raises:
        BundleError: it is not what `entry` says, or holds something else than float32 arrays.
    """
    try:
        weights = load(read_checked(path, entry))
    except SafetensorError as error:
        raise BundleError(f"{path} cannot be read ({error}): export the bundle again") from error
    if not weights or any(value.dtype != np.float32 for value in weights.values()):
        raise BundleError(f"{path} holds something else than float32 weights: export the bundle again")
    return {name: np.asarray(value) for name, value in weights.items()}


def write_decoder(path: Path, weights: Weights, base_sha256: str) -> None:
    """Write a learnt decoder, whole or not at all.

    Raises:
        MaskrtError: the file cannot be written.
    """
    tensors = {name: np.ascontiguousarray(value) for name, value in weights.items()}
    write_bytes(path, save(tensors, {"kind": KIND, "base": base_sha256}))


def read_decoder(path: Path, base: Weights, base_sha256: str) -> dict[str, NDArray[np.float32]]:
    """Read the weights of a learnt decoder, which must have the names and shapes of the base weights.

    Raises:
        BundleError: the file is no decoder, belongs to another bundle, is damaged, or is not finite.
    """
    most = sum(value.nbytes for value in base.values()) + _HEADER_BYTES
    try:
        if not path.is_file():
            raise BundleError(f"{path} is no plain file: choose another file")
        if path.stat().st_size > most:
            raise BundleError(f"{path} is larger than a decoder of this bundle: choose another file")
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != KIND:
                raise BundleError(f"{path} is no decoder that maskrt has saved: choose another file")
            if metadata.get("base") != base_sha256:
                raise BundleError(f"{path} was learnt from another bundle's decoder: open it with that bundle")
            found = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} cannot be read as a decoder ({error}): choose another file") from error
    if reason := different(found, base):
        raise BundleError(f"{path} is damaged, {reason}: save the decoder again")
    return found


def different(found: Mapping[str, NDArray[np.generic]], base: Weights) -> str:
    """Return in a few words why arrays cannot replace a decoder's weights; empty where they can."""
    if missing := sorted(set(base) ^ set(found)):
        return f"its names differ in {missing[0]}"
    for name, value in found.items():
        if value.dtype != np.float32 or value.shape != base[name].shape:
            return f"{name} is {value.dtype} {list(value.shape)}, not float32 {list(base[name].shape)}"
        if not np.isfinite(value).all():
            return f"{name} holds NaN or infinity"
    return ""
