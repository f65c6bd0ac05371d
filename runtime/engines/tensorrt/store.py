"""The store of engines: where they are kept, and which of them may run.

An engine is executable code for one GPU, driver and TensorRT. It lies with its record in BUNDLE/engines/TARGET or,
where the bundle cannot be written, in the user's cache. Its owner alone can read or change it. It is deserialised only
after its record, its size and its sha256 have shown that it is the one that was built here for this model.
"""

import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from maskrt.runtime.bundle.bundle import MAX_MANIFEST_BYTES
from maskrt.runtime.engines.tensorrt.folders import EngineFolder, bundle_places, open_to_others, plain
from maskrt.runtime.engines.tensorrt.memory import Cuda
from maskrt.runtime.errors import BundleError, MaskrtError
from maskrt.runtime.files import sha256_of, write_files

Ranges = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # least, usual and largest shape

TIMING_CACHE = "timing.cache"
# A bundle that cannot be written, as it should be where others use it, or in which others could write.
NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The machine that an engine runs on. driver: the CUDA version of the driver."""

    tensorrt: str
    gpu: str
    compute_capability: str
    driver: str

    def __str__(self) -> str:
        return f"TensorRT {self.tensorrt} on {self.gpu} ({self.compute_capability}), driver for CUDA {self.driver}"

    @property
    def key(self) -> str:
        """The name of its engines' folder: different targets have different ones."""
        return f"{plain(self.gpu)[:40]}-{hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]}"


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options with which an engine is built.

    profile: input -> its least, usual and largest shape. flags: of the builder, by name; without TF32 float32 is kept
    as it is. workspace_mb: memory that the builder may use, 10^6 bytes.
    """

    profile: dict[str, Ranges]
    flags: tuple[str, ...] = ()
    workspace_mb: int | None = None


class EngineRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The record beside an engine. model_sha256: of the ONNX file, or of it and its weights, see model_sha256()."""

    model_sha256: str
    target: Target
    recipe: Recipe
    plan_sha256: str
    size_bytes: int


@dataclass(frozen=True)
class EngineFiles:
    """The files of a model's engine and its record. name: the model's, without its ending."""

    place: EngineFolder
    name: str

    @property
    def engine(self) -> Path:
        """The path PLACE/NAME.engine."""
        return self.place.folder / f"{self.name}.engine"

    @property
    def record(self) -> Path:
        """The path PLACE/NAME.json."""
        return self.place.folder / f"{self.name}.json"

    @property
    def timings(self) -> Path:
        """The timing cache that all engines of the place share."""
        return self.place.folder / TIMING_CACHE


def target_of(tensorrt: Any, cuda: Cuda) -> Target:
    """Return the target that is this machine, with the GPU of `cuda`."""
    gpu = cuda.gpu()
    return Target(tensorrt.__version__, gpu.name, gpu.compute_capability, gpu.driver)


def model_sha256(model: Path) -> str:
    """Return the sha256 of an ONNX file; where its weights are beside it, that of both files' sha256."""
    data = model.with_name(f"{model.name}.data")
    own = sha256_of(model)
    return hashlib.sha256((own + sha256_of(data)).encode()).hexdigest() if data.exists() else own


def files_of(model: Path, target: Target) -> tuple[EngineFiles, EngineFiles]:
    """Return the files of a model's engine for a target: in the bundle, and in the user's cache."""
    bundle, cache = bundle_places(model.parent, target.key)
    return EngineFiles(bundle, model.stem), EngineFiles(cache, model.stem)


def writable_files(model: Path, target: Target) -> EngineFiles:
    """Return the first of the two that can be written, and make their folder for its owner alone.

    Raises:
        MaskrtError: neither can.
    """
    bundle, cache = files_of(model, target)
    try:
        bundle.place.make()
        return bundle
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise _cannot_store(bundle.engine, error) from error
    try:
        cache.place.make()
        return cache
    except OSError as error:
        raise _cannot_store(cache.engine, error) from error


def store_engine(files: EngineFiles, plan: bytes, model: str, target: Target, recipe: Recipe) -> None:
    """Write an engine and its record, each whole or not at all; what was there stays until then.

    Args:
        model: the sha256 of its model.

    Raises:
        MaskrtError: it cannot be written, for example because the disk is full.
    """
    record = EngineRecord(model, target, recipe, hashlib.sha256(plan).hexdigest(), len(plan))
    # Should the process die between the two renames, the record does not fit its engine, which is then refused.
    write_private(
        {files.engine: plan, files.record: msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"}
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


def is_built(files: EngineFiles, model: str, target: Target, recipe: Recipe) -> bool:
    """Return whether exactly this engine is there, whole."""
    try:
        return _read(files, model, target, recipe) is not None
    except BundleError:
        return False


def read_engine(model: Path, target: Target, device: int = 0) -> bytes:
    """Return the engine of a model for this machine's GPU of that number.

    Raises:
        BundleError: there is none, or none that may run here; it says what is wrong and the command that fixes it.
    """
    try:
        return find_engine(model, target, None)
    except BundleError as error:
        raise BundleError(f"{error}: run {build_command(model, device)}") from error


def find_engine(model: Path, target: Target, recipe: Recipe | None) -> bytes:
    """Return the engine of a model for a target; of this recipe, where one is given.

    Raises:
        BundleError: there is none, or none that may run; it says what is wrong.
    """
    wrong: BundleError | None = None
    sha256 = model_sha256(model)
    for files in files_of(model, target):
        try:
            if (plan := _read(files, sha256, target, recipe)) is not None:
                return plan
        except BundleError as error:
            wrong = wrong or error
    raise wrong or _stale(model, target) or BundleError(f"{model.name} has no TensorRT engine yet")


def _stale(model: Path, target: Target) -> BundleError | None:
    """Return the error for an engine of another target; preferably one for this GPU that an update has left behind."""
    found: list[tuple[Path, Target]] = []
    for files in files_of(model, target):
        for record in sorted(files.place.folder.parent.glob(f"*/{files.record.name}")):
            try:
                found.append((record.with_suffix(".engine"), _read_record(record).target))
            except (BundleError, OSError):
                continue  # it is not what would have been used
    if not found:
        return None
    engine, other = min(found, key=lambda each: each[1].gpu != target.gpu)
    return BundleError(f"{engine}: engine built for {other}, found {target}")


def build_command(model: Path, device: int = 0) -> str:
    """Return the command that builds a bundle's engines for a GPU, in the precision that the model's name says."""
    precision = model.stem.partition(".")[2]
    options = (f" --precision {precision}" if precision else "") + (f" --device {device}" if device else "")
    return f"maskrt build {model.parent} --engine tensorrt{options}"


def _read(files: EngineFiles, model: str, target: Target, recipe: Recipe | None) -> bytes | None:
    """Return the engine that is there, None where there is none; raise BundleError where it may not run."""
    try:
        if not files.record.is_file():
            return None
        files.place.check()
        record = _read_record(files.record)
    except OSError as error:
        raise BundleError(f"{files.engine} is not used ({error.filename}: {error.strerror})") from error
    if record.target != target:
        raise BundleError(f"{files.engine}: engine built for {record.target}, found {target}")
    if record.model_sha256 != model:
        raise BundleError(f"{files.engine}: engine built from another model than the bundle's")
    if recipe is not None and record.recipe != recipe:
        raise BundleError(f"{files.engine}: engine built for other sizes or with other options")
    return _read_plan(files.engine, record)


def _read_record(path: Path) -> EngineRecord:
    """Read a record; raise OSError where it cannot be read, BundleError where it cannot be used."""
    with path.open("rb") as file:
        data = file.read(MAX_MANIFEST_BYTES)
    try:
        return msgspec.json.decode(data, type=EngineRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path} is not a record of maskrt ({error})") from error


def _read_plan(path: Path, record: EngineRecord) -> bytes:
    """Return the engine, if it is the file that was written; else raise BundleError."""
    try:
        # Not through a link, which could lead to whatever others can change.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NOFOLLOW", 0))) as file:
            found = os.fstat(file.fileno())
            if open_to_others(found):
                raise BundleError(f"{path} is code, and others than its owner can change it")
            if found.st_size != record.size_bytes:
                raise BundleError(f"{path}: {found.st_size} bytes, its record says {record.size_bytes}: truncated")
            plan = file.read()
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror or error})") from error
    if hashlib.sha256(plan).hexdigest() != record.plan_sha256:
        raise BundleError(f"{path}: sha256 differs from its record's: altered or damaged")
    return plan


def _cannot_store(path: Path, error: OSError) -> MaskrtError:
    fix = "free space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make it writable, or set XDG_CACHE_HOME"
    return MaskrtError(
        f"cannot write {path}: {error.strerror or error}: {fix} and run the command again; "
        "engines built so far are kept"
    )
