"""The cost of a bundle's graphs, in every precision that it holds, at the sizes that its pipeline usually needs."""

from collections.abc import Iterator, Mapping

import msgspec

from maskrt.export.graph_tools.cost import GraphCost, cost_of
from maskrt.export.graph_tools.onnx_file import read_model
from maskrt.export.graph_tools.shapes import Shape, input_shapes, walk_model
from maskrt.runtime.bundle.bundle import FP32, Bundle
from maskrt.runtime.engine_build.profiles import profile_of
from maskrt.runtime.errors import BundleError, CostUnknown, InputError

Axis = tuple[str, str, int]  # role, input, number of the axis
Chosen = Mapping[Axis, int]


class GraphReport(msgspec.Struct, frozen=True):
    """The cost of one file.

    inputs: their sizes; dynamic: the inputs that the file leaves open. cost: None where it cannot be read from the
    file; problem: why.
    """

    role: str
    precision: str
    inputs: dict[str, Shape]
    dynamic: tuple[str, ...]
    cost: GraphCost | None
    problem: str = ""


class Total(msgspec.Struct, frozen=True):
    """The cost of a precision's graphs, each run once, with the float32 graphs that it leaves alone. It is no frame's.

    graphs: the number counted; left_out: roles without a cost. peak_bytes: the largest, since they run one after the
    other. The other fields are those of GraphCost.
    """

    graphs: int
    left_out: tuple[str, ...]
    parameters: int
    weight_bytes: int
    multiply_adds: int
    flops: int
    peak_bytes: int


def graph_reports(bundle: Bundle, chosen: Chosen) -> tuple[GraphReport, ...]:
    """Return the cost of every ONNX file of a bundle, role by role, float32 first.

    Args:
        bundle: with the settings that it is run with, which decide the usual sizes.
        chosen: sizes of dynamic axes in place of the usual ones. Axes of one name in a graph have one size, so one
            choice is enough.

    Raises:
        InputError: no graph has a chosen axis, or its size is fixed or another; or a dynamic axis has no usual
            size, and none is chosen.
    """
    roles = [role for role, entry in bundle.manifest.models.items() if entry.file.endswith(".onnx")]
    strange = [role for role, _, _ in chosen if role not in roles]
    if strange:
        raise InputError(f"{bundle.path} has no graph {strange[0]}; it holds: {', '.join(roles)}")
    return tuple(_report(bundle.at(precision), role, chosen) for role in roles for precision in _of_role(bundle, role))


def totals_of(bundle: Bundle, reports: tuple[GraphReport, ...]) -> dict[str, Total]:
    """Return precision -> the cost of all its graphs."""
    by_file = {(report.role, report.precision): report for report in reports}
    roles = tuple(dict.fromkeys(report.role for report in reports))
    return {
        precision: _total([by_file.get((role, precision), by_file[role, FP32]) for role in roles])
        for precision in (FP32, *bundle.manifest.precisions)
    }


def _of_role(bundle: Bundle, role: str) -> Iterator[str]:
    """Yield the precisions in which a role has a file of its own."""
    yield FP32
    yield from (name for name, lower in bundle.manifest.precisions.items() if role in lower.models)


def _report(bundle: Bundle, role: str, chosen: Chosen) -> GraphReport:
    path = bundle.model_path(role)
    model = read_model(path)
    named = input_shapes(model)
    sizes = _sizes(bundle, role, named, {(i, axis): size for (r, i, axis), size in chosen.items() if r == role})
    dynamic = tuple(name for name, axes in named.items() if any(isinstance(axis, str) for axis in axes))
    try:
        cost = cost_of(walk_model(model, path.name, sizes), path.name)
        return GraphReport(role, bundle.precision, sizes, dynamic, cost)
    except CostUnknown as error:
        return GraphReport(role, bundle.precision, sizes, dynamic, None, str(error))


def _sizes(
    bundle: Bundle, role: str, named: dict[str, tuple[int | str, ...]], chosen: dict[tuple[str, int], int]
) -> dict[str, Shape]:
    """Return every input's size: its own, the chosen one, or the usual one of profile_of."""
    by_name: dict[str, int] = {}
    for (name, axis), size in chosen.items():
        if name not in named or not 0 <= axis < len(named[name]):
            inputs = ", ".join(f"{name} {_shown(axes)}" for name, axes in named.items())
            raise InputError(f"{role} has no axis {axis} of an input {name}; it has: {inputs}")
        label = named[name][axis]
        if isinstance(label, int):
            raise InputError(f"{role}: axis {axis} of {name} is always {label}")
        if label and by_name.setdefault(label, size) != size:
            raise InputError(f"{role}: the axes named {label} have one size, not {by_name[label]} and {size}")
    shapes = {
        name: tuple(
            axis if isinstance(axis, int) else chosen.get((name, number), by_name.get(axis, -1))
            for number, axis in enumerate(axes)
        )
        for name, axes in named.items()
    }
    try:
        usual = {name: ranges[1] for name, ranges in profile_of(bundle, role, shapes).items()}
    except BundleError as error:
        raise InputError(f"{error}, or choose its size with --size {role}.INPUT.AXIS=N") from error
    return shapes | usual


def _shown(axes: tuple[int | str, ...]) -> str:
    return f"[{', '.join(str(axis) or '?' for axis in axes)}]"


def _total(reports: list[GraphReport]) -> Total:
    costs = [report.cost for report in reports if report.cost is not None]
    return Total(
        graphs=len(costs),
        left_out=tuple(report.role for report in reports if report.cost is None),
        parameters=sum(cost.parameters for cost in costs),
        weight_bytes=sum(cost.weight_bytes for cost in costs),
        multiply_adds=sum(cost.multiply_adds for cost in costs),
        flops=sum(cost.flops for cost in costs),
        peak_bytes=max((cost.peak_bytes for cost in costs), default=0),
    )
