"""Reading of a model: the very bytes that were checked are the ones that an engine gets."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from maskrt.runtime.bundle.bundle import MAX_MODEL_BYTES
from maskrt.runtime.bundle.external_data import external_files
from maskrt.runtime.bundle.manifest import Artifact, DataFile, ModelEntry
from maskrt.runtime.errors import BundleError, InputError
from maskrt.runtime.files import read_plain

Entry = ModelEntry | Artifact


@dataclass(frozen=True)
class ModelFile:
    """An ONNX model in memory; external: name -> content of each file that it takes weights from."""

    model: bytes
    external: dict[str, bytes]


def read_model(path: Path, entry: Entry | None = None) -> ModelFile:
    """Read an ONNX file and the weights beside it.

    Args:
        entry: what the bundle says of it; None for a file that this process has just written.

    Raises:
        BundleError: a file is missing or altered, or the model takes weights from files that the entry does not list.
    """
    model = read_checked(path, entry)
    listed = {data.file: data for data in entry.data} if isinstance(entry, ModelEntry) else {}
    try:
        named = external_files(model)
    except ValueError as error:
        raise BundleError(f"{path.name} is no ONNX model ({error}): export it again") from error
    if entry is not None and named != set(listed):
        raise BundleError(
            f"{path.name} takes weights from {', '.join(sorted(named)) or 'no file'}, the bundle lists "
            f"{', '.join(sorted(listed)) or 'none'}: altered, copy the whole folder again"
        )
    if strange := [name for name in named if name != Path(name).name or name in ("", ".", "..")]:
        raise BundleError(f"{path.name} takes weights from {strange[0]!r}, which is no file beside it: export it again")
    return ModelFile(model, {name: read_checked(path.with_name(name), listed.get(name)) for name in sorted(named)})


def read_checked(path: Path, entry: Entry | DataFile | None) -> bytes:
    """Return a file's bytes, which must be those that the entry describes.

    Raises:
        BundleError: it is missing, no plain file, larger than any model, or altered.
    """
    try:
        data = read_plain(path, MAX_MODEL_BYTES if entry is None else entry.size_bytes)
    except InputError as error:
        raise BundleError(f"{error}; copy the whole folder again") from error
    if entry is not None and hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleError(f"{path}: sha256 differs from the bundle's: altered or damaged, copy the whole folder again")
    return data
