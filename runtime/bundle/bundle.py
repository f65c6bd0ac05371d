"""The bundle: the only thing that travels to the edge box.

A folder with `bundle.json` and the files it names, ONNX graphs and arrays, each with its sha256. A bundle is opened
read-only, verified before any file reaches an inference engine, and never changed in place.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from maskrt.runtime.bundle.manifest import (
    MANIFESTS,
    SCHEMA,
    Artifact,
    DataFile,
    Manifest,
    ManifestT,
    ModelEntry,
)
from maskrt.runtime.bundle.seal import KEY, SEALED, is_sealed
from maskrt.runtime.bundle.upgrade import RENAMED, upgraded
from maskrt.runtime.errors import BundleError, InputError
from maskrt.runtime.files import read_plain, sha256_of
from maskrt.runtime.strict_json import strict_json

FP32, LOWER = "fp32", ("fp16", "int8")
MANIFEST = "bundle.json"
PLAIN_ONNX, PLAIN_ARRAYS = (rf"[A-Za-z0-9_][A-Za-z0-9_.-]*\.{ending}" for ending in ("onnx", "(npz|safetensors)"))
MAX_MANIFEST_BYTES = 1 << 20
MAX_MODEL_BYTES = 8 << 30  # SAM ViT-H's encoder is 2.5 GB; anything past 8 GB is not one of our models


@dataclass(frozen=True)
class Bundle:
    """An opened, verified bundle, to be run in one of its precisions."""

    path: Path
    manifest: Manifest
    precision: str = FP32
    overridden: frozenset[str] = frozenset()  # settings that are the user's and not the file's

    def expect(self, *wanted: type[ManifestT]) -> ManifestT:
        """Return the manifest, which must be of one of the wanted kinds.

        Raises:
            BundleError: the bundle is of another kind; the error says what takes it.
        """
        if isinstance(self.manifest, wanted):
            return self.manifest
        raise BundleError(
            f"{self.path} is of kind {self.manifest.kind} and holds {self.manifest.holds}: use it with "
            f"{self.manifest.used_with}; this needs {' or '.join(kind.holds for kind in wanted)}"
        )

    def model(self, role: str) -> ModelEntry | Artifact:
        """Return the manifest's entry of a role such as "segmenter", "encoder" or "decoder" in this precision.

        Raises:
            BundleError: the bundle has no such model.
        """
        models = self.manifest.models
        if role not in models:
            raise BundleError(f"{self.path} has no {role}; it holds: {', '.join(models)}")
        if self.precision == FP32:
            return models[role]
        lower = self.manifest.precisions[self.precision]
        return lower.models[role] if role in lower.models else models[role]

    def model_path(self, role: str) -> Path:
        """Return the verified file of a role; it raises what model() raises."""
        return self.path / self.model(role).file

    def at(self, precision: str) -> "Bundle":
        """Return the same bundle in another of its precisions.

        Raises:
            BundleError: it does not hold that precision.
        """
        if precision not in (FP32, *LOWER):
            raise BundleError(f"unknown precision {precision!r}; maskrt knows: {', '.join((FP32, *LOWER))}")
        if precision != FP32 and precision not in self.manifest.precisions:
            raise BundleError(
                f"{self.path} has no {precision}, it holds: {', '.join((FP32, *self.manifest.precisions))}; make it "
                f"with maskrt export precisions {self.path} --precision {precision} --calibrate IMAGES --out OTHER"
            )
        return replace(self, precision=precision)


def open_bundle(path: Path | str, precision: str = FP32) -> Bundle:
    """Read and verify a bundle: schema, plain file names, sizes, and the sha256 of every file of every precision.

    Args:
        precision: the one to run it in: "fp32", or one that maskrt export precisions put into it.

    Raises:
        BundleError: it says what is wrong and what to do.
    """
    folder = Path(path)
    file, manifest = folder / MANIFEST, _read_manifest(folder)
    for role, entry in manifest.models.items():
        _verify(folder, role, entry)
    for name, lower in manifest.precisions.items():
        if sorted((*lower.models, *lower.float32)) != sorted(manifest.models):
            raise BundleError(f"{file}: precision {name} does not list every model: export the precision again")
        for role, artifact in lower.models.items():
            _verify_file(folder, f"{role} in {name}", artifact, PLAIN_ONNX, "NAME.onnx")
    return Bundle(folder, manifest).at(precision)


def entry_of(model: Path) -> ModelEntry | Artifact:
    """Return a file's entry in the bundle that it lies in; that file is verified, and no other.

    Raises:
        BundleError: it says what is wrong and what to do.
    """
    manifest = _read_manifest(model.parent)
    for role, entry in manifest.models.items():
        if entry.file == model.name:
            _verify(model.parent, role, entry)
            return entry
    for lower in manifest.precisions.values():
        for role, artifact in lower.models.items():
            if artifact.file == model.name:
                _verify_file(model.parent, role, artifact, PLAIN_ONNX, "NAME.onnx")
                return artifact
    raise BundleError(f"{model.parent} names no file {model.name}: copy the whole folder again")


def _read_manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    if not os.path.lexists(file):
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}; make one with maskrt export")
    try:
        data = read_plain(file, MAX_MANIFEST_BYTES)
    except InputError as error:
        raise BundleError(f"{error}; export the bundle again") from error
    try:
        raw = strict_json(data)
    except ValueError as error:
        raise BundleError(f"{file} is not JSON of a bundle ({error}): export the bundle again") from error
    if not isinstance(raw, dict):
        raise BundleError(f"{file} is not an object of JSON: export the bundle again")
    _check_seal(file, data, raw)
    kind = raw.get("kind")
    if not isinstance(kind, str):
        raise BundleError(f"{file} does not name a kind: export the bundle again")
    if kind not in MANIFESTS:
        raise BundleError(f"{file} has the kind {kind!r}, this maskrt knows {', '.join(MANIFESTS)}: update maskrt")
    content = {name: value for name, value in raw.items() if name != KEY}
    try:
        return msgspec.convert(upgraded(content) if raw["schema"] < RENAMED else content, MANIFESTS[kind])
    except msgspec.ValidationError as error:
        raise BundleError(f"{file}: {error}; export the bundle again") from error


def _check_seal(file: Path, data: bytes, raw: dict[str, Any]) -> None:
    """Check the schema, and from SEALED on that the file is what maskrt has written."""
    schema = raw.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool):
        raise BundleError(f"{file} has no whole number as its schema: export the bundle again")
    if schema > SCHEMA:
        raise BundleError(f"{file} has schema {schema}, this maskrt reads up to {SCHEMA}: update maskrt")
    if schema < 1:
        raise BundleError(f"{file} has schema {schema}, which there never was: export the bundle again")
    if schema >= SEALED and not is_sealed(data):
        raise BundleError(f"{file} is not as maskrt wrote it, by its own digest: altered or damaged, copy it again")
    if schema < SEALED and KEY in raw:
        raise BundleError(f"{file} has a digest, and schema {schema} had none: altered or damaged, copy it again")


def _verify(folder: Path, role: str, entry: ModelEntry) -> None:
    _verify_file(folder, role, entry, rf"{PLAIN_ONNX}|{PLAIN_ARRAYS}", "NAME.onnx, NAME.npz or NAME.safetensors")
    for data in entry.data:
        # The name that the exporter derives from the model's own: a model cannot claim another one's weights.
        _verify_file(folder, role, data, re.escape(f"{entry.file}.data"), f"{entry.file}.data")


def _verify_file(folder: Path, role: str, entry: ModelEntry | DataFile | Artifact, pattern: str, shape: str) -> None:
    if not re.fullmatch(pattern, entry.file):
        raise BundleError(f"{folder}: {role} names the file {entry.file!r}; only plain {shape} files are opened")
    file = folder / entry.file
    if not file.is_file() or file.is_symlink():
        raise BundleError(f"{folder}: {entry.file} ({role}) is missing: copy the whole folder again")
    size = file.stat().st_size
    if size != entry.size_bytes or size > MAX_MODEL_BYTES:
        raise BundleError(f"{file}: {size} bytes, the bundle says {entry.size_bytes}: copy the whole folder again")
    if sha256_of(file) != entry.sha256:
        raise BundleError(f"{file}: sha256 differs from the bundle's: altered or damaged, copy the whole folder again")
