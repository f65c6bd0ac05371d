"""The description of a two-stage segmenter in a bundle, and the sizes that follow from it.

Source: D. Teixeira e Silva, R. Cruz, T. Goncalves, D. Carneiro, "Two-stage Semantic Segmentation in Neural Networks".
"""

from typing import Annotated, Literal

import msgspec

from maskrt.runtime.bundle.bounds import ClassName, Deviation, Mean, check_classes
from maskrt.runtime.errors import InputError
from maskrt.runtime.region import fit_size_hw

LEAST_SIDE = 32  # of a patch in pixels: below, five halvings leave nothing
BASELINE = "baseline"  # role of the one network that the two stages are compared with
MAX_SIDE = 16384  # of the working picture


class TwoStageSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The input and output of the networks of both stages.

    size: longest side in pixels of the working picture; stage 2 sees patches of it (the paper's hi_size). fit: "square"
    resizes a region to size x size, whatever its proportions, as the paper does; "keep" keeps the proportions. shrink:
    stage 1 sees 1 / shrink of the working picture. mean, std: of RGB / 255, or of luma / 255 where channels is 1.
    classes: names; for two, a network may answer one logit, that of the second (sigmoid), else one logit each
    (softmax). channels: 3 (RGB), or 1 (its luma). multiple: sides of the networks' inputs are multiples of it, where a
    graph leaves them open.
    """

    size: Annotated[int, msgspec.Meta(ge=LEAST_SIDE, le=MAX_SIDE)]
    mean: tuple[Mean, ...]
    std: tuple[Deviation, ...]
    classes: tuple[ClassName, ...]
    shrink: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 8
    channels: Literal[1, 3] = 3
    multiple: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 32
    fit: Literal["square", "keep"] = "keep"  # not the paper's: bundles from before the field keep the proportions

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std must have {self.channels} numbers each, as many as channels")
        check_classes(self.classes)

    @property
    def planes(self) -> int:
        """The number of maps with the classes' probabilities: for two classes the second's alone, else one each."""
        return 1 if len(self.classes) == 2 else len(self.classes)


class PatchSelectionSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of what stage 2 looks at again; the defaults are the paper's.

    patches: the paper's Np; a patch's side is size / patches. At most one of three says how many are looked at:
    patch_count (None: as many as `patches`, as in the paper); patch_fraction, rounded half up and at least one;
    uncertainty (0.25 in the public code's avg_sorted). For more than two classes, 0.5 * (1 - entropy of the mean
    probabilities / log of their number) stands for |mean - 0.5|. rank: the paper takes the mean of probabilities, the
    public code that of logits, which is for two classes only. windows: "sliding" ones lie anywhere on stage 1's pixels
    and are blended, which changes the answer.
    """

    patches: Annotated[int, msgspec.Meta(ge=1, le=512, description="patches along the longest side")] = 8
    patch_count: (
        Annotated[
            int,
            msgspec.Meta(
                ge=1, le=262_144, description="how many patches are looked at again; null: as many as `patches`"
            ),
        ]
        | None
    ) = None
    patch_fraction: (
        Annotated[
            float, msgspec.Meta(ge=1e-6, le=1, description="the share of a picture's patches that is looked at again")
        ]
        | None
    ) = None
    uncertainty: (
        Annotated[
            float,
            msgspec.Meta(ge=0, le=1, description="look again at every patch whose mean is at most this far from 0.5"),
        ]
        | None
    ) = None
    rank: Annotated[
        Literal["probability", "logit"],
        msgspec.Meta(description="what a patch's mean is taken of: probability or logit"),
    ] = "probability"
    windows: Annotated[
        Literal["grid", "sliding", "off"],
        msgspec.Meta(description="where stage 2 looks: at patches of a grid, at sliding windows, or nowhere (off)"),
    ] = "grid"
    target: Annotated[int, msgspec.Meta(ge=0, le=255, description="the number of the class whose mask is returned")] = 1

    def __post_init__(self) -> None:
        budgets = {name: getattr(self, name) for name in ("patch_count", "patch_fraction", "uncertainty")}
        given = [name for name, value in budgets.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: set all but one to null")
        if self.rank == "logit" and self.windows == "sliding":
            raise ValueError("rank=logit needs windows=grid: sliding windows are ranked by probabilities")

    def budget(self, in_picture: int) -> int:
        """Return the most windows that are looked at in a picture whose grid has so many patches; never more."""
        if self.uncertainty is not None:
            return in_picture
        if self.patch_fraction is not None:
            return max(1, int(self.patch_fraction * in_picture + 0.5))
        return min(in_picture, self.patches if self.patch_count is None else self.patch_count)


def patch_side(spec: TwoStageSpec, stages: PatchSelectionSpec) -> int:
    """Check that spec and settings agree, and return the side of a patch in pixels of the working picture.

    Raises:
        InputError: the patches are too small, or not a multiple of what the network takes; a budget is larger than the
            grid; or a setting does not fit the classes.
    """
    side, rest = divmod(spec.size, stages.patches)
    if rest or side % spec.multiple or side < LEAST_SIDE:
        raise InputError(
            f"patches={stages.patches} makes patches of {spec.size / stages.patches:g} pixels of {spec.size}: choose a "
            f"number that makes them a multiple of {spec.multiple} and at least {LEAST_SIDE}"
        )
    most = stages.patches**2
    if stages.patch_count is not None and stages.patch_count > most:
        raise InputError(f"patch_count={stages.patch_count}: a grid of patches={stages.patches} has {most} at most")
    if stages.target >= len(spec.classes):
        raise InputError(f"target {stages.target} is not one of {len(spec.classes)} classes")
    if stages.rank == "logit" and len(spec.classes) > 2:
        raise InputError(f"rank=logit needs two classes, the bundle has {len(spec.classes)}: use rank=probability")
    return side


def working_size(spec: TwoStageSpec, size_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a region's working picture.

    It is size x size with fit=square; else its longest side is `size`, and the other is rounded half up.
    """
    if spec.fit == "square":
        return spec.size, spec.size
    return fit_size_hw(size_hw, (spec.size, spec.size))


def low_size(spec: TwoStageSpec, working_hw: tuple[int, int]) -> tuple[int, int]:
    """Return stage 1's size without padding: 1 / shrink of the working picture, rounded half up, at least a pixel."""
    height, width = (max(1, (2 * side + spec.shrink) // (2 * spec.shrink)) for side in working_hw)
    return height, width


def largest_low(spec: TwoStageSpec) -> int:
    """Return the longest side of stage 1's input."""
    return max(padded_size(low_size(spec, (spec.size, spec.size)), spec.multiple))


def baseline_specs(spec: TwoStageSpec, selection: PatchSelectionSpec) -> tuple[TwoStageSpec, PatchSelectionSpec]:
    """Return what runs a baseline: a stage 1 that sees the working picture at full size, and no stage 2."""
    return msgspec.structs.replace(spec, shrink=1), msgspec.structs.replace(
        selection, windows="off", rank="probability"
    )


def padded_size(size_hw: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Round both sides up to multiples."""
    height, width = (-(-side // multiple) * multiple for side in size_hw)
    return height, width
