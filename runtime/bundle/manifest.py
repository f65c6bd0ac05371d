"""The content of bundle.json: the entries of a bundle's files, and the manifest of each kind."""

from typing import ClassVar, Literal, TypeVar

import msgspec

from maskrt.runtime.bundle.bounds import Big, Count, Score, Sha256, Size, Text
from maskrt.runtime.bundle.interactive_spec import AdaptationSpec
from maskrt.runtime.bundle.seal import sealed
from maskrt.runtime.bundle.specs import (
    MasksSpec,
    RefinementSpec,
    RefinerSpec,
    SamSpec,
    SegmenterSpec,
    VotingSpec,
)
from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec, TwoStageSpec

# 1 had no precisions, 2 no structure_sha256, 3 had other names (see maskrt.runtime.bundle.upgrade), 4 had no digest.
SCHEMA = 5


class Parity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The difference of a graph from the one that it was made from; max_rel is a share of the largest output.

    A float32 graph is compared with PyTorch, on random input, at export. A graph in a lower precision is compared with
    the float32 graph, on what the pipeline fed it with.
    """

    max_abs: Big
    max_rel: Big


class DataFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights beside an ONNX file that would pass protobuf's limit of 2 GiB, as SAM ViT-H's encoder does."""

    file: Text
    sha256: Sha256
    size_bytes: Size


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ONNX file and the weights beside it, or one file of arrays.

    checkpoint: the one that it was made from, KIND:FILE. tensorrt: what TensorRT would refuse of the graph, as
    maskrt.export.graph_tools.fitness found at export. structure_sha256: of the graph without its weights' values, as
    maskrt.export.graph_tools.structure defines it; empty for arrays, and where an older maskrt exported it.
    """

    file: Text
    sha256: Sha256
    size_bytes: Size
    checkpoint: Text
    checkpoint_sha256: Text
    parity: Parity | None = None
    data: tuple[DataFile, ...] = ()
    tensorrt: tuple[str, ...] = ()
    structure_sha256: str = ""


class Artifact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A graph in a lower precision: one typed ONNX file. structure_sha256: see ModelEntry."""

    file: Text
    sha256: Sha256
    size_bytes: Size
    error: Parity
    structure_sha256: str = ""


class Agreement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The agreement of a lower precision's answer with that of float32, in ONNX Runtime on the CPU, frame by frame.

    frames: those in which either found a mask. mean_iou, worst_iou: of the two final masks. label_difference: share of
    the region's pixels whose class differs, over all frames. segments_iou: of SAM's masks with their counterparts,
    before they are fused; None where there are none.
    """

    frames: Count
    mean_iou: Score
    worst_iou: Score
    label_difference: Score
    segments_iou: Score | None = None


class PrecisionSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A lower precision of a bundle, which passed its verification.

    models: role -> file; float32: the other roles, whose float32 file it uses; agreement: verified part, "soss" or
    "refiner" -> its agreement; tolerance: the least mean IoU that each had to reach.
    """

    models: dict[str, Artifact]
    float32: tuple[str, ...]
    agreement: dict[str, Agreement]
    tolerance: Score


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    """The part of bundle.json that all kinds of bundles share; a kind is a subclass with a `tag`.

    note: the exporter's words. precisions: the lower ones that the bundle holds. holds, used_with: for errors, what
    such a bundle is and which command takes it.
    """

    holds: ClassVar[str] = "networks of its own kind"
    used_with: ClassVar[str] = "the program that made it"

    schema: Count
    maskrt: Text
    precision: Literal["fp32"]
    opset: Count
    models: dict[str, ModelEntry]
    note: str = ""
    precisions: dict[str, PrecisionSpec] = {}  # msgspec copies the default

    @property
    def kind(self) -> str:
        """The name of its kind, such as "soss"."""
        return str(self.__struct_config__.tag)

    @property
    def sections(self) -> tuple[str, ...]:
        """The fields whose settings a user can override; an option belongs to the first one that knows it."""
        return ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that a pixel may have; none where the kind has none."""
        return ()

    @property
    def refiner_specs(self) -> tuple[RefinerSpec, RefinementSpec] | None:
        """The refiner that the bundle holds, and how it is run; None where it holds none."""
        return None

    @property
    def two_stage_specs(self) -> tuple[TwoStageSpec, PatchSelectionSpec] | None:
        """The two stages that the bundle holds, and how they are run; None where it holds none."""
        return None


class SossManifest(Manifest, frozen=True, forbid_unknown_fields=True, tag="soss", kw_only=True):
    """The bundle.json of a segmenter and a SAM; with a refiner, its answer can be refined.

    two_stage: the segmenter is one of two stages, "segmenter_low" and "segmenter_high" in place of "segmenter", and
    `patch_selection` says how it is run; its classes are the segmenter's. roi_expected: the models were trained on
    regions of interest, and whole frames give poor masks.
    """

    holds: ClassVar[str] = "a segmenter with a SAM"
    used_with: ClassVar[str] = "maskrt run"

    segmenter: SegmenterSpec
    sam: SamSpec
    masks: MasksSpec = MasksSpec()
    voting: VotingSpec = VotingSpec()
    refiner: RefinerSpec | None = None
    refinement: RefinementSpec = RefinementSpec(select="off")
    two_stage: TwoStageSpec | None = None
    patch_selection: PatchSelectionSpec = PatchSelectionSpec()
    roi_expected: bool = False

    def __post_init__(self) -> None:
        if self.two_stage is not None and self.two_stage.classes != self.segmenter.classes:
            raise ValueError("two_stage and segmenter name different classes")
        if self.voting.target >= len(self.segmenter.classes):
            raise ValueError(f"voting target {self.voting.target} is not one of {len(self.segmenter.classes)} classes")

    @property
    def sections(self) -> tuple[str, ...]:
        """See Manifest; a segmenter of one stage has no patches to select."""
        if self.two_stage is None:
            return ("refinement", "voting", "masks")
        return ("refinement", "voting", "patch_selection", "masks")

    @property
    def classes(self) -> tuple[str, ...]:
        """See Manifest."""
        return self.segmenter.classes

    @property
    def refiner_specs(self) -> tuple[RefinerSpec, RefinementSpec] | None:
        """See Manifest."""
        return None if self.refiner is None else (self.refiner, self.refinement)

    @property
    def two_stage_specs(self) -> tuple[TwoStageSpec, PatchSelectionSpec] | None:
        """See Manifest."""
        return None if self.two_stage is None else (self.two_stage, self.patch_selection)


class RefineManifest(Manifest, frozen=True, forbid_unknown_fields=True, tag="refine", kw_only=True):
    """The bundle.json of a refiner alone."""

    holds: ClassVar[str] = "a refiner alone"
    used_with: ClassVar[str] = "maskrt refine"

    refiner: RefinerSpec
    refinement: RefinementSpec = RefinementSpec()

    @property
    def sections(self) -> tuple[str, ...]:
        """See Manifest."""
        return ("refinement",)

    @property
    def refiner_specs(self) -> tuple[RefinerSpec, RefinementSpec] | None:
        """See Manifest."""
        return self.refiner, self.refinement


class TwoStageManifest(Manifest, frozen=True, forbid_unknown_fields=True, tag="two_stage", kw_only=True):
    """The bundle.json of a two-stage segmenter: models "low" and "high", and where it has one "baseline".

    The baseline is one network for the whole working picture, which `maskrt eval` compares the stages with.

    Each has one input, float32 [B, channels, H, W], and one output, logits float32 [B, number of classes or 1, H, W].
    Sizes of an axis are dynamic, or fixed to what the pipeline asks for; B fixed to 1 means one picture at a time.
    roi_expected: see SossManifest.
    """

    holds: ClassVar[str] = "a two-stage segmenter"
    used_with: ClassVar[str] = "maskrt run"

    two_stage: TwoStageSpec
    patch_selection: PatchSelectionSpec = PatchSelectionSpec()
    roi_expected: bool = False

    @property
    def sections(self) -> tuple[str, ...]:
        """See Manifest."""
        return ("patch_selection",)

    @property
    def classes(self) -> tuple[str, ...]:
        """See Manifest."""
        return self.two_stage.classes

    @property
    def two_stage_specs(self) -> tuple[TwoStageSpec, PatchSelectionSpec] | None:
        """See Manifest."""
        return self.two_stage, self.patch_selection


class InteractiveManifest(Manifest, frozen=True, forbid_unknown_fields=True, tag="interactive", kw_only=True):
    """The bundle.json of a SAM whose mask decoder learns while it is used.

    Its models are "encoder", "click_decoder" and "step", and "weights", the decoder's own, with which it begins.
    """

    holds: ClassVar[str] = "a SAM that learns from clicks"
    used_with: ClassVar[str] = "maskrt annotate"

    sam: SamSpec
    adaptation: AdaptationSpec = AdaptationSpec()

    @property
    def sections(self) -> tuple[str, ...]:
        """See Manifest."""
        return ("adaptation",)


ManifestT = TypeVar("ManifestT", bound=Manifest)

# The kinds that open_bundle reads, by the name in bundle.json; maskrt.runtime.kinds adds those of other packages.
MANIFESTS: dict[str, type[Manifest]] = {
    "soss": SossManifest,
    "refine": RefineManifest,
    "two_stage": TwoStageManifest,
    "interactive": InteractiveManifest,
}


def encode_manifest(manifest: Manifest) -> bytes:
    """Return bundle.json as it is written: indented, in field order, with its digest."""
    return sealed(msgspec.to_builtins(manifest))
