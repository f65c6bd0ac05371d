"""The bundle: the only thing that travels to the edge box.

A folder with `bundle.json` and the files it names, ONNX graphs and arrays, each with its sha256. A bundle is opened
read-only, verified before any file reaches an inference engine, and never changed in place.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from maskrt.runtime.bundle.interactive_spec import AdaptSpec
from maskrt.runtime.bundle.specs import MasksSpec, RefinerSpec, RefineSpec, SamSpec, SegmenterSpec, VotingSpec
from maskrt.runtime.bundle.two_stage_spec import StagesSpec, TwoStageSpec
from maskrt.runtime.errors import BundleError
from maskrt.runtime.files import sha256_of

SpecT = TypeVar("SpecT", bound=msgspec.Struct)

SCHEMA = 3  # 1 had no precisions, 2 no structure_sha256
FP32, LOWER = "fp32", ("fp16", "int8")
MANIFEST = "bundle.json"
PLAIN_ONNX, PLAIN_ARRAYS = (rf"[A-Za-z0-9_][A-Za-z0-9_.-]*\.{ending}" for ending in ("onnx", "(npz|safetensors)"))
MAX_MANIFEST_BYTES = 1 << 20
MAX_MODEL_BYTES = 8 << 30  # SAM ViT-H's encoder is 2.5 GB; anything past 8 GB is not one of our models


class Parity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a graph was from the one it was made from, max_rel as a share of the largest output.

    Of a float32 graph: from PyTorch, on random input, at export. Of a lower precision's: from the float32 graph, on
    what the pipeline fed it with.
    """

    max_abs: float
    max_rel: float


class DataFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights beside an ONNX file that would pass protobuf's limit of 2 GiB, as SAM ViT-H's encoder does."""

    file: str
    sha256: str
    size_bytes: int


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ONNX file and the weights beside it, or one file of arrays.

    source_sha256 is that of the checkpoint it was made from. tensorrt: what TensorRT would refuse of the graph, as
    maskrt.export.graph_tools.fitness found at export. structure_sha256: of the graph without its weights' values, as
    maskrt.export.graph_tools.structure defines it; empty of arrays, and where an older maskrt exported it.
    """

    file: str
    sha256: str
    size_bytes: int
    source: str
    source_sha256: str
    parity: Parity | None = None
    data: tuple[DataFile, ...] = ()
    tensorrt: tuple[str, ...] = ()
    structure_sha256: str = ""


class Artifact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A graph in a lower precision: one typed ONNX file. structure_sha256: as of ModelEntry."""

    file: str
    sha256: str
    size_bytes: int
    error: Parity
    structure_sha256: str = ""


class Agreement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How near a lower precision's answer came to that of float32, ONNX Runtime on the CPU, frame by frame.

    frames: those in which either found a mask. mean_iou, worst_iou: of the two final masks. label_difference: share of
    the region's pixels whose class differs, over all frames. segments_iou: of SAM's masks with their counterparts,
    before they are fused; None where there are none.
    """

    frames: int
    mean_iou: float
    worst_iou: float
    label_difference: float
    segments_iou: float | None = None


class PrecisionSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lower precision of a bundle, which passed its verification.

    models: role -> file; float32: the other roles, whose float32 file it uses; agreement: by what was verified, "soss"
    and "refiner"; tolerance: the least mean IoU that was asked of each.
    """

    models: dict[str, Artifact]
    float32: tuple[str, ...]
    agreement: dict[str, Agreement]
    tolerance: float


class _Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    schema: int
    maskrt: str
    precision: Literal["fp32"]
    opset: int
    models: dict[str, ModelEntry]
    note: str = ""
    precisions: dict[str, PrecisionSpec] = {}  # msgspec copies the default


class SossManifest(_Common, frozen=True, forbid_unknown_fields=True, tag="soss", kw_only=True):
    """bundle.json of a segmenter and a SAM; with a refiner, its answer can be refined.

    two_stage: the segmenter is one of two stages, "segmenter_low" and "segmenter_high" in place of "segmenter", and
    `selection` is how it is run; its classes are the segmenter's.
    """

    segmenter: SegmenterSpec
    sam: SamSpec
    masks: MasksSpec = MasksSpec()
    voting: VotingSpec = VotingSpec()
    refiner: RefinerSpec | None = None
    refine: RefineSpec = RefineSpec(select="off")
    two_stage: TwoStageSpec | None = None
    selection: StagesSpec = StagesSpec()

    def __post_init__(self) -> None:
        if self.two_stage is not None and self.two_stage.classes != self.segmenter.classes:
            raise ValueError("two_stage and segmenter name different classes")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that a pixel may have."""
        return self.segmenter.classes


class RefineManifest(_Common, frozen=True, forbid_unknown_fields=True, tag="refine", kw_only=True):
    """bundle.json of a refiner alone."""

    refiner: RefinerSpec
    refine: RefineSpec = RefineSpec()


class TwoStageManifest(_Common, frozen=True, forbid_unknown_fields=True, tag="two_stage", kw_only=True):
    """bundle.json of a two-stage segmenter: models "low" and "high".

    Each has one input, float32 [B, channels, H, W], and one output, logits float32 [B, number of classes or 1, H, W].
    Sizes of an axis are dynamic, or fixed to what the pipeline asks for; B fixed to 1 means one picture at a time.
    """

    stages: TwoStageSpec
    selection: StagesSpec = StagesSpec()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that a pixel may have."""
        return self.stages.classes


class InteractiveManifest(_Common, frozen=True, forbid_unknown_fields=True, tag="interactive", kw_only=True):
    """bundle.json of a SAM whose mask decoder learns while it is used.

    Models "encoder", "click_decoder" and "step", and "weights", the decoder's own, with which it begins.
    """

    sam: SamSpec
    adapt: AdaptSpec = AdaptSpec()


Manifest = SossManifest | RefineManifest | TwoStageManifest | InteractiveManifest


@dataclass(frozen=True)
class Bundle:
    """An opened, verified bundle, to be run in one of its precisions."""

    path: Path
    manifest: Manifest
    precision: str = FP32

    def model(self, role: str) -> ModelEntry | Artifact:
        """What the manifest says of the file of a role such as "segmenter", "encoder", "decoder" in this precision.

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
        """The verified file of a role; raises as model()."""
        return self.path / self.model(role).file

    def at(self, precision: str) -> "Bundle":
        """The same bundle in another of its precisions.

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
        precision: to run it in: "fp32", or one of those that maskrt export precisions put into it.

    Raises:
        BundleError: with what is wrong and what to do.
    """
    folder = Path(path)
    file, manifest = folder / MANIFEST, _read_manifest(folder)
    for role, entry in manifest.models.items():
        _verify(folder, role, entry)
    for name, lower in manifest.precisions.items():
        if sorted((*lower.models, *lower.float32)) != sorted(manifest.models):
            raise BundleError(f"{file}: {name} does not say of every model what it uses: export the precision again")
        for role, artifact in lower.models.items():
            _verify_file(folder, f"{role} in {name}", artifact, PLAIN_ONNX, "NAME.onnx")
    return Bundle(folder, manifest).at(precision)


def entry_of(model: Path) -> ModelEntry | Artifact:
    """What the bundle that a file lies in says of it; that file is verified, and no other.

    Raises:
        BundleError: with what is wrong and what to do.
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


def soss_manifest(bundle: Bundle) -> SossManifest:
    """The manifest of a segmenter with a SAM.

    Raises:
        BundleError: the bundle is of another kind.
    """
    manifest = segmenting_manifest(bundle)
    if not isinstance(manifest, SossManifest):
        raise BundleError(f"{bundle.path} holds a two-stage segmenter: this needs a bundle with a SAM")
    return manifest


def segmenting_manifest(bundle: Bundle) -> SossManifest | TwoStageManifest:
    """The manifest of a bundle that needs nothing but frames.

    Raises:
        BundleError: it holds a refiner alone.
    """
    if isinstance(bundle.manifest, RefineManifest):
        raise BundleError(f"{bundle.path} holds a refiner alone: use it with maskrt refine")
    if isinstance(bundle.manifest, InteractiveManifest):
        raise BundleError(f"{bundle.path} needs clicks: use it with maskrt annotate")
    return bundle.manifest


def interactive_manifest(bundle: Bundle) -> InteractiveManifest:
    """The manifest of a SAM that learns from clicks.

    Raises:
        BundleError: the bundle is of another kind.
    """
    if not isinstance(bundle.manifest, InteractiveManifest):
        raise BundleError(f"{bundle.path} does not learn from clicks: make one with maskrt export interactive")
    return bundle.manifest


def refiner_manifest(bundle: Bundle) -> SossManifest | RefineManifest:
    """The manifest of a bundle that has, or can have, a refiner.

    Raises:
        BundleError: the bundle is of another kind.
    """
    if isinstance(bundle.manifest, TwoStageManifest | InteractiveManifest):
        raise BundleError(f"{bundle.path} has no refiner: export one with maskrt export refiner")
    return bundle.manifest


def two_stage_manifest(bundle: Bundle) -> TwoStageManifest:
    """The manifest of a two-stage segmenter.

    Raises:
        BundleError: the bundle is of another kind.
    """
    if not isinstance(bundle.manifest, TwoStageManifest):
        raise BundleError(f"{bundle.path} is no two-stage segmenter: make one with maskrt export")
    return bundle.manifest


def two_stage_of(bundle: Bundle) -> tuple[TwoStageSpec, StagesSpec]:
    """The two stages of a bundle that is one, or whose SOSS has one, and how they are run.

    Raises:
        BundleError: it has none.
    """
    manifest = segmenting_manifest(bundle)
    spec = manifest.stages if isinstance(manifest, TwoStageManifest) else manifest.two_stage
    if spec is None:
        raise BundleError(f"{bundle.path} has no two-stage segmenter: make one with maskrt export")
    return spec, manifest.selection


def encode_manifest(manifest: Manifest) -> bytes:
    """bundle.json as it is written: indented, in field order."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def with_overrides(spec: SpecT, overrides: dict[str, Any]) -> SpecT:
    """A spec with some fields replaced, validated as if it came from a file.

    Raises:
        BundleError: an unknown field, or a value of the wrong type.
    """
    try:
        return msgspec.convert(msgspec.to_builtins(spec) | overrides, type(spec))
    except msgspec.ValidationError as error:
        known = ", ".join(field.name for field in msgspec.structs.fields(spec))
        raise BundleError(f"option not understood: {error}; known: {known}") from error


def _read_manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    if not file.is_file():
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}; make one with maskrt export")
    if file.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{file} is larger than {MAX_MANIFEST_BYTES} bytes: not written by maskrt")
    try:
        raw = msgspec.json.decode(file.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{file} is not JSON ({error}): export the bundle again") from error
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise BundleError(f"{file} has schema {schema}, this maskrt reads up to {SCHEMA}: update maskrt")
    try:
        manifest: Manifest = msgspec.convert(raw, Manifest)
        return manifest
    except msgspec.ValidationError as error:
        raise BundleError(f"{file}: {error}; export the bundle again") from error


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
