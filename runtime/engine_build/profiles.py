"""TensorRT's optimisation profiles: the least, the usual and the largest size of every dynamic axis.

A profile holds the sizes that a bundle's pipeline can use under its settings, and no more: the largest sizes cost GPU
memory. The sizes come from the bundle's row in the table of kinds.
"""

from collections.abc import Mapping

from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.engines.axes import EVERY, IMAGE_AXES, Axes
from maskrt.runtime.engines.tensorrt.store import Ranges
from maskrt.runtime.errors import BundleError
from maskrt.runtime.kinds.table import kind_of

TOGETHER = ("segmenter", "encoder")  # roles whose graphs take several frames at a time, along the first axis


def profile_of(bundle: Bundle, role: str, shapes: Mapping[str, tuple[int, ...]], batch: int = 1) -> dict[str, Ranges]:
    """Return the profile of a graph.

    Args:
        bundle: with the settings for which engines are built.
        shapes: shapes of the graph's inputs, -1 for a dynamic axis.
        batch: the most frames at a time, which is also the usual number.

    Returns:
        Input -> least, usual and largest shape, for the inputs that have a dynamic axis.

    Raises:
        BundleError: no table knows a dynamic axis, or an older graph takes one picture and not a batch.
    """
    dynamic = {name: shape for name, shape in shapes.items() if -1 in shape}
    if single := [name for name, shape in dynamic.items() if role in TOGETHER and len(shape) != IMAGE_AXES]:
        raise BundleError(f"{role}: {single[0]} is one picture, not a batch of them: export the bundle again")
    sizes = kind_of(bundle).sizes
    axes = sizes[role](bundle) if dynamic and role in sizes else {}
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
