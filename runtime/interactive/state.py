"""Turns the state of a decoder into plain arrays and back, so that work can go on after a stop."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.engines.device_tensor import DeviceTensor
from maskrt.runtime.errors import BundleError
from maskrt.runtime.interactive.decoder_files import Weights, different
from maskrt.runtime.interactive.learning import FIRST, SECOND, AdamState, Tensors

WEIGHT = "weight."
GROUPS = (WEIGHT, FIRST, SECOND)
COUNTERS = ("t", "steps", "skipped_steps")


def on_host(tensors: Tensors) -> dict[str, NDArray[Any]]:
    """Copy tensors into arrays, from wherever they lie."""
    return {
        name: value.numpy() if isinstance(value, DeviceTensor) else np.array(value, order="C")
        for name, value in tensors.items()
    }


def to_arrays(state: AdamState) -> dict[str, NDArray[Any]]:
    """Copy weights and moments, float32, by prefix and name, and the counters, int64 []."""
    groups = zip(GROUPS, (state.weights, state.first, state.second), strict=True)
    arrays = {prefix + name: value for prefix, group in groups for name, value in on_host(group).items()}
    counts = (state.t, state.steps, state.skipped)
    return arrays | {name: np.array(count, np.int64) for name, count in zip(COUNTERS, counts, strict=True)}


def from_arrays(state: Mapping[str, NDArray[Any]], base: Weights) -> AdamState:
    """Return the state that to_arrays was given, from copies.

    Args:
        base: weights with the names and shapes that it must have.

    Raises:
        BundleError: the state is damaged or belongs to another decoder, so no step can go on from it.
    """
    groups: list[dict[str, NDArray[Any]]] = []
    for prefix in GROUPS:
        group = {name: np.array(state[prefix + name]) for name in base if prefix + name in state}
        if reason := different(group, base):
            raise BundleError(f"the state does not fit this bundle's decoder: {reason}; start anew")
        groups.append(group)
    weights, first, second = groups
    if any((value < 0).any() for value in second.values()):  # Adam takes their roots
        raise BundleError("the state is damaged: a second moment is negative; start anew")
    t, steps, skipped = (_count(state, name) for name in COUNTERS)
    return AdamState(weights, first, second, t, steps, skipped)


def _count(state: Mapping[str, NDArray[Any]], name: str) -> int:
    value = np.asarray(state.get(name, ()))
    if value.size != 1 or value.dtype.kind not in "iu" or value.item() < 0:
        raise BundleError(f"the state is damaged: {name} is not a count; start anew")
    return int(value.item())
