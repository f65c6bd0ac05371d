"""The base of all pipelines, which turn each frame into its result or its own error."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels import sets
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.batching import run_isolated, unwrap
from maskrt.runtime.closeable import Closeable
from maskrt.runtime.errors import InputError, NetworkError, ProviderUnavailable
from maskrt.runtime.forks import require_threads
from maskrt.runtime.region import checked_roi, cut
from maskrt.runtime.types import Frame, Result, Roi

Outcomes = list[Result | InputError | NetworkError]

# Name -> the implementation of every kernel, loaded on first use.
KERNELS: dict[str, Callable[[], KernelSet]] = {"cpu": lambda: sets.CPU, "cuda": sets.cuda}


@dataclass(frozen=True)
class View:
    """The part of a frame that a pipeline sees.

    rgb: the region of interest, uint8 [h, w, 3], C-contiguous; roi_xywh: where it lies; size_hw, name: the frame's.
    """

    rgb: NDArray[np.uint8]
    roi_xywh: Roi
    size_hw: tuple[int, int]
    name: str


class FramePipeline(Closeable):
    """A loaded pipeline, for use in a `with` block.

    A subclass segments several views at once. It may also replace the view, which is the region of interest.
    """

    def __call__(self, frame: Frame | NDArray[np.uint8], roi: Roi | None = None) -> Result:
        """Segment one frame; see batch() for arguments, answer and errors."""
        return unwrap(self.batch([frame], [roi])[0])

    def batch(self, frames: Sequence[Frame | NDArray[np.uint8]], rois: Sequence[Roi | None]) -> Outcomes:
        """Segment several frames, of any sizes.

        Args:
            frames: each a Frame, or its rgb as uint8 [H, W, 3].
            rois: for each frame x, y, width, height in pixels; None is the whole frame.

        Returns:
            For each frame its result or its own error: an InputError if the frame is not uint8 RGB, the ROI leaves it,
            or a network has fixed sides that do not fit; a NetworkError if a network failed on it.

        Raises:
            MaskrtError: this process was forked from one that had already run a pipeline.
            NetworkError: a network failed on all of them.
            OutOfMemory: not even half of what a network takes at a time fits into memory.
        """
        require_threads()
        named = [frame if isinstance(frame, Frame) else Frame(frame) for frame in frames]
        return run_isolated(list(zip(named, rois, strict=True)), self._view, self._segment)

    def _view(self, frame: Frame, roi: Roi | None) -> View:
        """Cut out the region of interest; raises InputError as checked_roi does."""
        return view_of(frame, roi)

    @abstractmethod
    def _segment(self, views: Sequence[View]) -> Outcomes:
        """Return the result of each view, or its own error; raise an error that concerns all of them."""


def view_of(frame: Frame, roi: Roi | None) -> View:
    """Return a frame's region of interest.

    Raises:
        InputError: see checked_roi.
    """
    checked = checked_roi(frame.rgb, roi)
    return View(cut(frame.rgb, checked), checked, (frame.rgb.shape[0], frame.rgb.shape[1]), frame.name)


def kernel_set(name: str) -> KernelSet:
    """Return the kernels of a name in KERNELS.

    Raises:
        InputError: there is no such name.
        ProviderUnavailable: they cannot run on this machine.
    """
    if name not in KERNELS:
        raise InputError(f"unknown kernels {name!r}: choose {' or '.join(KERNELS)}")
    try:
        return KERNELS[name]()
    except (ModuleNotFoundError, RuntimeError) as error:
        raise ProviderUnavailable(f"{error}; or use --kernels cpu") from error
