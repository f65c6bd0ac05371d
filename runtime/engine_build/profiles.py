"""TensorRT's optimisation profiles: the least, the usual and the largest size of every dynamic axis.

What the pipelines can ask for under a bundle's settings, and no more: the largest sizes cost GPU memory.
"""

from collections.abc import Callable, Mapping

from maskrt.runtime.bundle.bundle import Bundle, InteractiveManifest, refiner_manifest, soss_manifest, two_stage_of
from maskrt.runtime.bundle.specs import RefineSpec, SamSpec
from maskrt.runtime.bundle.two_stage_spec import largest_low, patch_side
from maskrt.runtime.engines.tensorrt.store import Ranges
from maskrt.runtime.errors import BundleError
from maskrt.runtime.pipelines.refine.pipeline import refiner_spec
from maskrt.runtime.pipelines.refine.stage import LEAST_TILE, STRIDE
from maskrt.runtime.pipelines.refine.tiles import BACKBONE_TILES
from maskrt.runtime.pipelines.two_stage.network import at_a_time
from maskrt.runtime.sam.mask_decoder import MASKS_PER_POINT, SplitDecoder
from maskrt.runtime.sam.mask_generator import IMAGE_AXES

Range = tuple[int, int, int]  # least, usual, largest
Axes = dict[int, Range]

EVERY = "*"  # the inputs that a table does not name
POINTS: Range = (1, 2, 16)  # of a prompt: automatic masks have a point and its padding, a box two corners
CLICKS: Range = (1, 2, 64)  # points of an object that is clicked on, or its padding, and the corners of a box
MAX_STEP = 64  # of the selection strided:N
TOGETHER = ("segmenter", "encoder")  # roles whose graphs take several frames at a time, along the first axis
TOKENS, HEADS = 5, 8  # of SAM's decoder: output tokens beside the points, and heads of every published size


def profile_of(bundle: Bundle, role: str, shapes: Mapping[str, tuple[int, ...]], batch: int = 1) -> dict[str, Ranges]:
    """The profile of a graph.

    Args:
        bundle: with the settings that it is built for.
        shapes: of the graph's inputs, -1 for a dynamic axis.
        batch: the most frames at a time; a batch of so many is the usual one.

    Returns:
        Input -> least, usual and largest shape, of those inputs that have a dynamic axis.

    Raises:
        BundleError: a dynamic axis that no table knows, or a picture that is no batch of them, as of older versions.
    """
    dynamic = {name: shape for name, shape in shapes.items() if -1 in shape}
    if single := [name for name, shape in dynamic.items() if role in TOGETHER and len(shape) != IMAGE_AXES]:
        raise BundleError(f"{role}: {single[0]} is one picture, not a batch of them: export the bundle again")
    axes = AXES[role](bundle) if dynamic and role in AXES else {}
    if role in TOGETHER:
        axes = {name: {0: (1, batch, batch), **sides} for name, sides in axes.items()}
    return {name: _shapes(role, name, shape, axes.get(name, axes.get(EVERY, {}))) for name, shape in dynamic.items()}


def _shapes(role: str, name: str, shape: tuple[int, ...], axes: Axes) -> Ranges:
    unknown = [axis for axis, size in enumerate(shape) if size < 0 and axis not in axes]
    if unknown:
        raise BundleError(f"{role}: axis {unknown[0]} of {name} has no fixed size: export the bundle again")
    least, usual, largest = (
        tuple(axes[axis][rank] if size < 0 else size for axis, size in enumerate(shape)) for rank in range(3)
    )
    return least, usual, largest


def _segmenter(bundle: Bundle) -> dict[str, Axes]:
    height, width = soss_manifest(bundle).segmenter.input_hw  # the only size it is run at, whatever a file allows
    return {EVERY: {2: (height, height, height), 3: (width, width, width)}}


def _encoder(bundle: Bundle) -> dict[str, Axes]:
    size = sam_of(bundle).image_size
    return {"image": {1: (1, size, size), 2: (1, size, size)}}


def _decoder(bundle: Bundle) -> dict[str, Axes]:
    batch = soss_manifest(bundle).masks.points_per_batch
    prompts: Range = (1, batch, batch)
    return {
        "point_coords": {0: prompts, 1: POINTS},
        "point_labels": {0: prompts, 1: POINTS},
        "mask_input": {0: (1, 1, batch)},  # one mask for all prompts, or one for each
    }


def _click_decoder(bundle: Bundle) -> dict[str, Axes]:
    return {"point_coords": {1: CLICKS}, "point_labels": {1: CLICKS}}


def _token_side(bundle: Bundle) -> dict[str, Axes]:
    batch = _split_batch(bundle)
    axes: Axes = {0: (1, batch, batch), 1: POINTS}
    return {"point_coords": axes, "point_labels": axes}


def _upscale(bundle: Bundle) -> dict[str, Axes]:
    prompts: Range = (1, 1, _split_batch(bundle))  # called prompt by prompt
    rows: Range = (1, HEADS * (TOKENS + POINTS[1]), HEADS * (TOKENS + POINTS[2]))
    return {
        "kernels": {0: prompts, 1: (1, MASKS_PER_POINT, MASKS_PER_POINT)},
        "gains": {0: prompts},
        EVERY: {0: prompts, 1: rows},
    }


def _split_batch(bundle: Bundle) -> int:
    """Prompts at a time, as CandidateFinder.find counts them."""
    batch = soss_manifest(bundle).masks.points_per_batch
    return min(batch, SplitDecoder.batch or batch)


def _backbone(bundle: Bundle) -> dict[str, Axes]:
    largest = backbone_side(refiner_manifest(bundle).refine, refiner_spec(bundle).halo)
    sides: Range = (1, largest // 2, largest)
    return {"pixels": {2: sides, 3: sides}}


def _coarse(bundle: Bundle) -> dict[str, Axes]:
    sides = _ranged(bundle, lambda cells: -(-cells // 4) + 3)  # four cells to one, and neighbours on both sides
    return {"coarse": {2: (1, *sides[1:]), 3: (1, *sides[1:])}}


def _fusion(bundle: Bundle) -> dict[str, Axes]:
    pixels, padded, cells = (_ranged(bundle, size) for size in (lambda m: 2 * m + 9, lambda m: m + 2, lambda m: m))
    return {
        "pixels": {2: pixels, 3: pixels},
        "inside": {2: padded, 3: padded},
        "middle": {2: padded, 3: padded},
        "coarse": {2: cells, 3: cells},
    }


def _stage_1(bundle: Bundle) -> dict[str, Axes]:
    """Regions have any proportions: the shorter side is anything up to the longest."""
    spec, _ = two_stage_of(bundle)
    largest = largest_low(spec)
    sides: Range = (spec.multiple, largest, largest)
    return {EVERY: {0: (1, 1, at_a_time(largest)), 2: sides, 3: sides}}


def _stage_2(bundle: Bundle) -> dict[str, Axes]:
    spec, settings = two_stage_of(bundle)
    side = patch_side(spec, settings)
    most = at_a_time(side)
    sides: Range = (side, side, side)
    usual = min(most, settings.budget(settings.patches**2))
    return {EVERY: {0: (1, usual, most), 2: sides, 3: sides}}


# Role -> the dynamic axes of its inputs. What is not here has none.
AXES: dict[str, Callable[[Bundle], dict[str, Axes]]] = {
    "segmenter": _segmenter,
    "segmenter_low": _stage_1,
    "segmenter_high": _stage_2,
    "low": _stage_1,
    "high": _stage_2,
    "encoder": _encoder,
    "decoder": _decoder,
    "click_decoder": _click_decoder,
    "token_side": _token_side,
    "upscale": _upscale,
    "refiner_backbone": _backbone,
    "refiner_coarse": _coarse,
    "refiner_fusion": _fusion,
}


def sam_of(bundle: Bundle) -> SamSpec:
    """The SAM of a bundle, which looks for masks by itself or is clicked on.

    Raises:
        BundleError: it has none.
    """
    manifest = bundle.manifest
    return manifest.sam if isinstance(manifest, InteractiveManifest) else soss_manifest(bundle).sam


def backbone_side(settings: RefineSpec, halo: int) -> int:
    """The longest side of a window that the backbone gets, in pixels.

    It is cut from a picture, and has halos; or the picture is a little larger, and not cut (backbone_tile).
    """
    window = BACKBONE_TILES * settings.tile
    return max(window * 5 // 4, -(-window // STRIDE) * STRIDE + 2 * halo)


def cells_side(settings: RefineSpec) -> int:
    """The most cells along a side that a tile reads, whatever the selection.

    Half of its pixels, which are rounded up to the selection's step and may begin a step before.
    """
    return -(-(max(settings.tile, LEAST_TILE) + MAX_STEP) // 2) + 3


def _ranged(bundle: Bundle, size: Callable[[int], int]) -> Range:
    """A size that follows the cells of a tile; the usual tile is a whole one at full scale."""
    settings = refiner_manifest(bundle).refine
    return size(1), size(settings.tile // 2 + 1), size(cells_side(settings))
