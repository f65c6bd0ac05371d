"""The click decoder of an interactive bundle, whose weights change with every training example."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.engines.session import Array, Session
from maskrt.runtime.engines.tensorrt.session import TensorRtSession
from maskrt.runtime.errors import BundleError, NetworkError, OutOfMemory
from maskrt.runtime.interactive.learning import Tensors
from maskrt.runtime.interactive.state import on_host


class ClickDecoder(Protocol):
    """A session, and the way its engine gets the weights; weights that it was given are never changed in place."""

    @property
    def session(self) -> Session: ...

    def require(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Raise BundleError unless the engine takes weights of these names and shapes."""

    def run(self, weights: Tensors, feeds: Tensors) -> dict[str, Array]:
        """Return the outputs for the other inputs, computed with these weights; errors as for a session's run."""


@dataclass(frozen=True)
class WeightsAsInputs:
    """A decoder in ONNX Runtime, where every weight is an input with a default."""

    session: Session

    def require(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """See ClickDecoder."""
        optional = self.session.optional
        taken = {name: optional[name][1] for name in weights if name in optional}
        if taken != {name: value.shape for name, value in weights.items()}:
            raise BundleError("the click_decoder does not take the weights of the bundle: export the bundle again")

    def run(self, weights: Tensors, feeds: Tensors) -> dict[str, Array]:
        """See ClickDecoder."""
        return self.session.run({**feeds, **weights})


class WeightsByRefit:
    """A decoder as a TensorRT engine, which holds its weights; a run with other weights than the last replaces them."""

    def __init__(self, session: TensorRtSession) -> None:
        self.session = session
        self._set: Tensors | None = None  # the weights that the engine surely holds; None: unknown

    def require(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Check and set the weights; TensorRT knows a count for each name, but no shape.

        Raises:
            BundleError: they do not fit, or the engine was not built to be refitted.
            OutOfMemory: setting them takes more memory than there is.
        """
        try:
            self._refit(weights)
        except OutOfMemory:
            raise
        except NetworkError as error:
            raise BundleError(f"the click_decoder does not take the weights of the bundle: {error}") from error

    def run(self, weights: Tensors, feeds: Tensors) -> dict[str, Array]:
        """Run with these weights; see ClickDecoder.

        Raises:
            NetworkError: also if the weights cannot be set; the next run tries again.
        """
        # Compared by identity, since weights are never changed in place: SAM's decoder has 16 MB of them.
        if weights is not self._set:
            self._refit(weights)
        return self.session.run(feeds)

    def _refit(self, weights: Tensors) -> None:
        self._set = None  # an interrupt may come before or after the weights are set
        self.session.refit_weights(on_host(weights))
        self._set = weights
