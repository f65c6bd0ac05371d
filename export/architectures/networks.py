"""Find the one network in a checkpoint that an architecture fits whole, and load it; what is left out is named."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from maskrt.export.architectures.checkpoints import ALONE, StateDict, read_tensors
from maskrt.runtime.errors import CheckpointError, MaskrtError
from maskrt.runtime.types import Report

SHOWN = 3
COUNTER = "num_batches_tracked"  # of batch norm: PyTorch before 0.4.1 had none, and no answer depends on it
# What training code keeps beside the layers of a network, in the same module: statistics, losses, averages, heads that
# only training needs. Anything else there could be a layer that the answer depends on.
BESIDE = re.compile(
    r"(pixel_)?(mean|std)|n_averaged|(\w*_)?(criterion|criteria|loss\w*|ema|metrics?|optimi[sz]er\w*|scheduler\w*)"
    r"|(train|val|valid|test)_\w+|(model_)?ema\w*|\w+_ema|aux_classifier|classification_head"
)


@dataclass(frozen=True)
class Architecture:
    """A network's architecture. build: makes the network in the sizes of a state dict; a CheckpointError refuses it.

    anchor: a key that every state dict of it has. multiple: the sides of the input must be multiples of it.
    """

    build: Callable[[Mapping[str, Tensor]], nn.Module]
    anchor: str
    multiple: int = 1


Known = Mapping[str, Architecture]


def load_network(
    file: Path, kind: str, architecture: Architecture, known: Known, report: Report = lambda _: None
) -> nn.Module:
    """Load the one network of an architecture that a checkpoint holds, in float32 and in evaluation mode.

    It is searched under every prefix, such as `state_dict.model.module.`; all its keys must be there with their shapes.

    Args:
        known: KIND -> architecture; an error names the kinds that would fit.
        report: called with one line where tensors are left out or converted.

    Raises:
        CheckpointError: the checkpoint is damaged or holds code; no network of this architecture is there whole; two
            are there that differ; or a weight is not a finite number.
    """
    tensors = read_tensors(file)
    source = f"{kind}: {file}"
    prefixes = _prefixes(tensors, architecture.anchor)
    if not prefixes:
        keys = _listed("keys", (name for name in tensors if not name.endswith(COUNTER)))
        raise CheckpointError(
            f"{file}: not a {kind}: no prefix holds {architecture.anchor}; it has {keys}{fitting_hint(tensors, known)}"
        )
    faults = {prefix: _fault(tensors, prefix, architecture, prefixes) for prefix in prefixes}
    whole = [prefix for prefix, fault in faults.items() if fault is None]
    if not whole:
        prefix = min(prefixes, key=len)
        under = f" under the prefix {prefix}" if prefix else ""
        raise CheckpointError(f"{source} does not fit{under}: {faults[prefix]}{fitting_hint(tensors, known)}")
    prefix, *others = whole
    state = _under(tensors, prefix)
    for other in others:
        if not _same(state, _under(tensors, other), architecture.build(state).state_dict()):
            shown = " and ".join(repr(one) for one in (prefix, other))
            raise CheckpointError(
                f"{source} holds {len(whole)} whole networks that differ, under the prefixes {shown}: load the one "
                f"that you want, and save it alone: {ALONE}"
            )
    network = architecture.build(state)
    wanted = network.state_dict()
    _require_numbers(source, wanted, state)
    _report_left_out(file, prefix, wanted, tensors, state, report)
    missing = network.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False).missing_keys
    assert all(key.endswith(COUNTER) for key in missing)
    return network.eval()


def load_into(network: nn.Module, file: Path) -> None:
    """Load a checkpoint into a network that is there already, such as one whose training goes on."""
    anchor = next(key for key in network.state_dict() if not key.endswith(COUNTER))
    training = network.training
    load_network(file, type(network).__name__, Architecture(lambda _: network, anchor), {})
    network.train(training)


def fitting_hint(tensors: StateDict, known: Known) -> str:
    """Return the end of an error: the kinds of which the tensors hold a whole network, if any."""
    kinds = []
    for kind, architecture in known.items():
        prefixes = _prefixes(tensors, architecture.anchor)
        if any(_fault(tensors, prefix, architecture, prefixes) is None for prefix in prefixes):
            kinds.append(kind)
    return f"; it fits {' or '.join(kinds)}: put that in front of the file name" if kinds else ""


def _report_left_out(
    file: Path, prefix: str, wanted: StateDict, tensors: StateDict, state: StateDict, report: Report
) -> None:
    """Report the prefix, the tensors that are not the network's, and the types that are converted to float32."""
    others = [name for name in tensors if not (name.startswith(prefix) and name.removeprefix(prefix) in wanted)]
    if others:
        under = f"the network under the prefix {prefix}" if prefix else "the network"
        report(f"{file.name}: took {under}; {_listed('left out', others)}")
    kinds = {value.dtype for key, value in state.items() if key in wanted and value.is_floating_point()}
    for kind in sorted(kinds - {torch.float32}, key=str):
        how = "rounded" if kind == torch.float64 else "converted exactly"
        report(f"{file.name}: weights of {str(kind).removeprefix('torch.')}, {how} to float32")


def _prefixes(tensors: StateDict, anchor: str) -> list[str]:
    """Return what stands in front of a key wherever it is, "" included."""
    found = (name.removesuffix(anchor) for name in tensors if name.endswith(anchor))
    return [prefix for prefix in found if not prefix or prefix.endswith(".")]


def _under(tensors: StateDict, prefix: str) -> StateDict:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _fault(tensors: StateDict, prefix: str, architecture: Architecture, prefixes: Iterable[str]) -> str | None:
    """Return why the tensors under a prefix are no whole network of an architecture; None: they are one."""
    deeper = tuple(one for one in prefixes if one != prefix and one.startswith(prefix))
    state = _under({name: value for name, value in tensors.items() if not (deeper and name.startswith(deeper))}, prefix)
    try:
        with torch.device("meta"):  # shapes without memory: ViT-H is 2.5 GB
            wanted = {key: tuple(value.shape) for key, value in architecture.build(state).state_dict().items()}
    except MaskrtError as error:
        return str(error)
    except (ValueError, IndexError, RuntimeError, TypeError, ZeroDivisionError):
        return "its weights have sizes that no such network has"
    own = {key.split(".", 1)[0] for key in wanted}
    extra = [key for key in state if key not in wanted]
    complaints = [
        _listed("missing", (key for key in wanted if key not in state and not key.endswith(COUNTER))),
        _listed("unexpected", (key for key in extra if _is_layer(key, own))),
        _listed(
            "wrong shape",
            (
                f"{key} is {list(state[key].shape)}, expected {list(shape)}"
                for key, shape in wanted.items()
                if key in state and tuple(state[key].shape) != shape
            ),
        ),
    ]
    return "; ".join(filter(None, complaints)) or None


def _is_layer(key: str, own: set[str]) -> bool:
    """Return whether a tensor beside a network's own could be one of its layers. own: the names of its parts."""
    first = key.split(".", 1)[0]
    return first in own or not BESIDE.fullmatch(first.lower())


def _same(one: StateDict, other: StateDict, wanted: StateDict) -> bool:
    pairs = [(one[key], other[key]) for key in wanted if not key.endswith(COUNTER)]
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def _require_numbers(source: str, wanted: StateDict, state: StateDict) -> None:
    """Raise CheckpointError unless every weight is a finite number, in float32 too."""
    for key, place in wanted.items():
        if not place.is_floating_point():
            continue
        value = state[key]
        if not value.is_floating_point() or value.is_meta or value.layout != torch.strided:
            kind = value.dtype if value.layout == torch.strided else value.layout
            found = "without values" if value.is_meta else str(kind).removeprefix("torch.")
            raise CheckpointError(
                f"{source}: {key} is {found}, expected dense floating-point numbers: "
                "save the weights before they are quantised or moved"
            )
        bad = value.numel() - int(torch.isfinite(value.float()).sum())
        if bad:
            raise CheckpointError(
                f"{source}: {key} holds NaN or infinity in {bad} of {value.numel()} places: training diverged; take "
                "an earlier checkpoint"
            )


def _listed(what: str, items: Iterable[str]) -> str:
    found = list(items)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{what}: {', '.join(found[:SHOWN])}{more}" if found else ""
