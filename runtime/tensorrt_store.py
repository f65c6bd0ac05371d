"""Where engines are kept, and which of them may run.

An engine is executable code for one GPU, driver and TensorRT. It lies with its record in BUNDLE/engines, or, where the
bundle cannot be written, in the user's cache; its owner alone can read or change it; and it is deserialised only after
its record, its size and its sha256 have shown that it is the one which was built here for this model.
"""

import errno
import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from maskrt.runtime.atomic import write_files
from maskrt.runtime.bundle import MAX_MANIFEST_BYTES, sha256_of
from maskrt.runtime.cuda_memory import Cuda
from maskrt.runtime.engine_cache import FOLDER, user_cache
from maskrt.runtime.errors import BundleError, MaskrtError

Ranges = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # least, usual and largest shape

TIMING_CACHE = "timing.cache"
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an engine runs on. driver: the CUDA version of the driver."""

    tensorrt: str
    gpu: str
    compute_capability: str
    driver: str

    def __str__(self) -> str:
        return f"TensorRT {self.tensorrt} on {self.gpu} ({self.compute_capability}), driver for CUDA {self.driver}"


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an engine is built.

    profile: input -> its least, usual and largest shape. flags: of the builder, by name; without TF32 float32 is kept
    as it is. workspace_mb: memory the builder may use, 10^6 bytes.
    """

    profile: dict[str, Ranges]
    flags: tuple[str, ...] = ()
    workspace_mb: int | None = None


class EngineRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What lies beside an engine. model_sha256: of the ONNX file, or of it and its weights, see model_sha256()."""

    model_sha256: str
    target: Target
    recipe: Recipe
    plan_sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Place:
    """Where a model's engine is, and its record."""

    engine: Path

    @property
    def record(self) -> Path:
        """NAME.json beside NAME.engine."""
        return self.engine.with_suffix(".json")


def target_of(tensorrt: Any, cuda: Cuda) -> Target:
    """This machine, with the GPU of `cuda`."""
    gpu = cuda.gpu()
    return Target(tensorrt.__version__, gpu.name, gpu.compute_capability, gpu.driver)


def model_sha256(model: Path) -> str:
    """The sha256 of an ONNX file; where its weights are beside it, of both files' sha256."""
    data = model.with_name(f"{model.name}.data")
    own = sha256_of(model)
    return hashlib.sha256((own + sha256_of(data)).encode()).hexdigest() if data.exists() else own


def places_of(model: Path) -> tuple[Place, Place]:
    """In the bundle, and in the user's cache under the bundle's name and a hash of its place."""
    bundle = model.parent.resolve()
    cache = user_cache() / "maskrt" / FOLDER
    name = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', bundle.name)}-{hashlib.sha256(os.fsencode(bundle)).hexdigest()[:12]}"
    file = f"{model.stem}.engine"
    return Place(bundle / FOLDER / file), Place(cache / name / file)


def writable_place(model: Path) -> Place:
    """The first of the two places that can be written; its folder is made, for its owner alone.

    Raises:
        MaskrtError: neither can.
    """
    bundle, cache = places_of(model)
    try:
        return _prepared(bundle)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise _cannot_store(bundle.engine, error) from error
    try:
        return _prepared(cache)
    except OSError as error:
        raise _cannot_store(cache.engine, error) from error


def _prepared(place: Place) -> Place:
    """A place whose folder is there and can be written."""
    folder = place.engine.parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    return place


def store_engine(place: Place, plan: bytes, model: str, target: Target, recipe: Recipe) -> None:
    """Write an engine and its record, each whole or not at all; what was there stays until then.

    Args:
        model: the sha256 of its model.

    Raises:
        MaskrtError: it cannot be written, for example because the disk is full.
    """
    record = EngineRecord(model, target, recipe, hashlib.sha256(plan).hexdigest(), len(plan))
    # Should the process die between the two renames, the record does not fit its engine, which is then refused.
    write_private(
        {place.engine: plan, place.record: msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"}
    )


def write_private(files: dict[Path, bytes]) -> None:
    """Write files that belong together and that only their owner can read or change.

    Raises:
        MaskrtError: one cannot be written; what was there is untouched.
    """
    try:
        write_files(files, mode=0o600)
    except OSError as error:
        raise _cannot_store(next(iter(files)), error) from error


def is_built(place: Place, model: str, target: Target, recipe: Recipe) -> bool:
    """Whether a place holds exactly this engine, whole."""
    try:
        record = _read_record(place)
        _read_plan(place, record)
    except (BundleError, FileNotFoundError):
        return False
    return (record.model_sha256, record.target, record.recipe) == (model, target, recipe)


def read_engine(model: Path, target: Target, device: int = 0) -> bytes:
    """The engine of a model for this machine's GPU of that number.

    Raises:
        BundleError: there is none, or none that may run here; with what is wrong and the command that mends it.
    """
    wrong: BundleError | None = None
    sha256 = model_sha256(model)
    for place in places_of(model):
        if not place.record.is_file():
            continue
        try:
            record = _read_record(place)
            _check(place, record, sha256, target)
            return _read_plan(place, record)
        except BundleError as error:
            wrong = wrong or error
    if wrong is None:
        raise BundleError(f"{model.name} has no TensorRT engine yet: run {build_command(model, device)}")
    raise BundleError(f"{wrong}: run {build_command(model, device)}") from wrong


def build_command(model: Path, device: int = 0) -> str:
    """What builds the engines of a model's bundle for a GPU, in the precision that the file's name says."""
    precision = model.stem.partition(".")[2]
    options = (f" --precision {precision}" if precision else "") + (f" --device {device}" if device else "")
    return f"maskrt build {model.parent} --engine tensorrt{options}"


def _read_record(place: Place) -> EngineRecord:
    """Raises FileNotFoundError where there is none, BundleError where it cannot be used."""
    with place.record.open("rb") as file:
        data = file.read(MAX_MANIFEST_BYTES)
    try:
        return msgspec.json.decode(data, type=EngineRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{place.record} is not a record of maskrt ({error})") from error


def _check(place: Place, record: EngineRecord, model: str, target: Target) -> None:
    if record.target != target:
        raise BundleError(f"{place.engine}: engine built for {record.target}, found {target}")
    if record.model_sha256 != model:
        raise BundleError(f"{place.engine}: engine built from another model than the bundle's")


def _read_plan(place: Place, record: EngineRecord) -> bytes:
    """The engine, if it is the file that was written."""
    try:
        with place.engine.open("rb") as file:
            found = os.fstat(file.fileno())
            if os.name == "posix" and (found.st_mode & 0o022 or found.st_uid not in (0, os.geteuid())):
                raise BundleError(f"{place.engine} is code, and others than its owner can change it")
            if found.st_size != record.size_bytes:
                raise BundleError(
                    f"{place.engine}: {found.st_size} bytes, its record says {record.size_bytes}: truncated"
                )
            plan = file.read()
    except OSError as error:
        raise BundleError(f"{place.engine} cannot be read ({error.strerror or error})") from error
    if hashlib.sha256(plan).hexdigest() != record.plan_sha256:
        raise BundleError(f"{place.engine}: sha256 differs from its record's: altered or damaged")
    return plan


def _cannot_store(path: Path, error: OSError) -> MaskrtError:
    mend = "free space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make it writable, or set XDG_CACHE_HOME"
    return MaskrtError(
        f"cannot write {path}: {error.strerror or error}: {mend} and run the command again; "
        "engines built so far are kept"
    )
