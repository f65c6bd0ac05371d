"""The click decoder of an interactive bundle, asked with weights that change from lesson to lesson."""

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
    """A session, and how its engine comes by the weights. Those that were given are never changed in place."""

    @property
    def session(self) -> Session: ...

    def require(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Raises BundleError unless the engine takes weights of these names and shapes."""

    def run(self, weights: Tensors, feeds: Tensors) -> dict[str, Array]:
        """The outputs for the other inputs, computed with these weights; errors as of a session's run."""


@dataclass(frozen=True)
class WeightsAsInputs:
    """In ONNX Runtime every weight is an input with a default."""

    session: Session

    def require(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """As of ClickDecoder."""
        optional = self.session.optional
        taken = {name: optional[name][1] for name in weights if name in optional}
        if taken != {name: value.shape for name, value in weights.items()}:
            raise BundleError("the click_decoder does not take the weights of the bundle: export the bundle again")

    def run(self, weights: Tensors, feeds: Tensors) -> dict[str, Array]:
        """As of ClickDecoder."""
        return self.session.run({**feeds, **weights})


class WeightsByRefit:
    """A TensorRT engine holds its weights; they are replaced where others are asked with than the last time."""

    def __init__(self, session: TensorRtSession) -> None:
        self.session = session
        self._set: Tensors | None = None  # what the engine surely holds; None: unknown

    def require(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """As of ClickDecoder, but TensorRT knows a count for each name, and no shape. The weights are then set.

        Raises:
            BundleError: they do not fit, or the engine was not built to be refitted.
            OutOfMemory: there is none to set them.
        """
        try:
            self._refit(weights)
        except OutOfMemory:
            raise
        except NetworkError as error:
            raise BundleError(f"the click_decoder does not take the weights of the bundle: {error}") from error

    def run(self, weights: Tensors, feeds: Tensors) -> dict[str, Array]:
        """As of ClickDecoder.

        Raises:
            NetworkError: also where the weights cannot be set; the next run tries it again.
        """
        # By identity, since none is changed in place: SAM's decoder has 16 MB of them to compare.
        if weights is not self._set:
            self._refit(weights)
        return self.session.run(feeds)

    def _refit(self, weights: Tensors) -> None:
        self._set = None  # an interrupt may come before or after they are set
        self.session.refit_weights(on_host(weights))
        self._set = weights
