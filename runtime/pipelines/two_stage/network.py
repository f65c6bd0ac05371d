"""A network of a two-stage segmenter, and the maps of probabilities or log odds that its logits give."""

from collections.abc import Callable

import numpy as np

from maskrt.kernels.arrays import Floats
from maskrt.runtime.batching import in_halves
from maskrt.runtime.bundle.two_stage_spec import TwoStageSpec, padded_size
from maskrt.runtime.engines.session import Session
from maskrt.runtime.errors import BundleError, NetworkError
from maskrt.runtime.numeric import softmax

# Limits of one call. Memory grows with both: a U-Net of 64 kernels takes some 300 bytes a pixel, so 0.3 GB at most.
MAX_PIXELS = 1 << 20
MAX_PICTURES = 64


class StageNetwork:
    """A session that takes any number of pictures of one size, in as few calls as memory allows."""

    def __init__(self, role: str, session: Session, spec: TwoStageSpec, largest: int, one_by_one: bool = False) -> None:
        """Check the graph against the spec.

        Args:
            largest: largest side of the pictures in pixels, which decides how many a call takes.
            one_by_one: run each picture in a call of its own, as always where the graph's batch is fixed to 1.

        Raises:
            BundleError: the graph does not have one input and one output of the shapes that the spec declares.
        """
        self._role, self._session, self._spec = role, session, spec
        if len(session.inputs) != 1 or len(session.outputs) != 1:
            raise BundleError(
                f"{role} has {len(session.inputs)} inputs and {len(session.outputs)} outputs: "
                "export it with one of each"
            )
        ((self._input, (kind, self._shape)),) = session.inputs.items()
        ((self._output, (_, out_shape)),) = session.outputs.items()
        if kind != "tensor(float)" or len(self._shape) != 4 or self._shape[1] not in (None, spec.channels):
            raise BundleError(
                f"{role} takes {kind} {list(self._shape)}, the bundle declares float32 [B, {spec.channels}, H, W]: "
                "export it again"
            )
        if len(out_shape) != 4 or out_shape[1] not in (None, *self._planes):
            raise BundleError(
                f"{role} answers {list(out_shape)}, the bundle declares {self._declared}: export it again"
            )
        if self._shape[0] not in (None, 1):
            raise BundleError(f"{role} takes {self._shape[0]} pictures at a time: export it for 1, or for any number")
        self._at_a_time = 1 if one_by_one or self._shape[0] == 1 else at_a_time(largest)

    @property
    def _planes(self) -> tuple[int, ...]:
        """Numbers of logits that a pixel may have."""
        classes = len(self._spec.classes)
        return (1, 2) if classes == 2 else (classes,)

    @property
    def _declared(self) -> str:
        return f"[B, {' or '.join(map(str, self._planes))}, H, W]"

    def padded(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size that a picture is padded to: a fixed side that holds it, otherwise the spec's multiples."""
        rounded = padded_size(size_hw, self._spec.multiple)
        height, width = (
            fixed if fixed is not None and fixed >= side else multiple
            for fixed, side, multiple in zip(self._shape[2:], size_hw, rounded, strict=True)
        )
        return height, width

    def require_size(self, size_hw: tuple[int, int], why: str) -> None:
        """Raise BundleError if the graph's sides are fixed to others; why: the setting that asks for this size."""
        if any(fixed not in (None, size) for fixed, size in zip(self._shape[2:], size_hw, strict=True)):
            fixed = " x ".join("any" if side is None else str(side) for side in self._shape[:1:-1])
            raise BundleError(
                f"{self._role} takes pictures of {fixed}, {why} makes {size_hw[1]} x {size_hw[0]}: "
                "export it with dynamic sides, or set what fits it"
            )

    def __call__(self, pictures: Floats) -> Floats:
        """Return the logits, float32 [N, C or 1, H, W], of pictures, float32 [N, channels, H, W].

        Raises:
            NetworkError: the output has another shape than the bundle declares, or holds NaN.
            OutOfMemory: not even half of what a call takes fits.
        """
        step = self._at_a_time
        parts = [
            logits
            for start in range(0, len(pictures), step)
            for logits in in_halves(self._run, pictures[start : start + step])
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, pictures: Floats) -> Floats:
        logits: Floats = self._session.run({self._input: pictures})[self._output]
        count, _, *size_hw = pictures.shape
        if logits.shape not in [(count, planes, *size_hw) for planes in self._planes]:
            raise NetworkError(
                f"{self._role} returned {list(logits.shape)} for {list(pictures.shape)}, the bundle declares "
                f"{self._declared}: export again"
            )
        return logits


def at_a_time(side: int) -> int:
    """Return how many pictures with sides up to this one a call takes."""
    return max(1, min(MAX_PICTURES, MAX_PIXELS // side**2))


def probabilities(logits: Floats) -> Floats:
    """Return the probabilities of one picture from its logits [L, H, W].

    With two classes it is the second's alone, float32 [1, H, W]; otherwise all, float32 [C, H, W].
    """
    if len(logits) > 2:
        return softmax(logits)
    odds = log_odds(logits)
    small = np.exp(-np.abs(odds))  # no overflow, whatever the logit
    return np.asarray(np.where(odds >= 0, np.float32(1), small) / (1 + small))


def log_odds(logits: Floats) -> Floats:
    """Return the logit of the second of two classes, float32 [1, H, W], from one logit or two."""
    return np.ascontiguousarray(logits if len(logits) == 1 else logits[1:] - logits[:1])


# Name -> the values by which patches are ranked.
RANKED: dict[str, Callable[[Floats], Floats]] = {"probability": probabilities, "logit": log_odds}
