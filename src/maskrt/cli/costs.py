"""Costs of graphs as tables."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # it needs onnx
    from maskrt.export.inspection import GraphReport, Total

LINE = 120  # columns where there is no terminal; rich takes 80 and would break names


def print_costs(reports: "tuple[GraphReport, ...]", totals: "Mapping[str, Total]") -> None:
    """Every graph's figures, the totals, the sizes they are of, and what could not be counted; on stdout."""
    table = _table("graph", "precision", "parameters", "weights MB", "GFLOPs", "peak MB", "peak at")
    for report in reports:
        cost = report.cost
        row = ("?",) * 4 if cost is None else _figures(cost.parameters, cost.weight_bytes, cost.flops, cost.peak_bytes)
        table.add_row(report.role, report.precision, *row, "" if cost is None else cost.peak_at)
    table.add_section()
    for precision, total in totals.items():
        row = _figures(total.parameters, total.weight_bytes, total.flops, total.peak_bytes)
        missing = f"without {', '.join(total.left_out)}" if total.left_out else ""
        table.add_row("each once", precision, *row, missing)
    _print(table)
    for report in reports:
        inputs = ", ".join(f"{name} {'x'.join(map(str, report.inputs[name]))}" for name in report.dynamic)
        if inputs:
            print(f"{report.role} in {report.precision} at {inputs}")
    for report in reports:
        if report.problem:
            print(f"not counted: {report.problem}")


def print_operators(reports: "tuple[GraphReport, ...]") -> None:
    """Every graph's operators, those without products too, with their share of its products; on stdout."""
    for report in reports:
        if report.cost is None:
            continue
        table = _table("operator", "nodes", "GFLOPs", "share", "writes MB")
        for name, operator in report.cost.operators.items():
            share = operator.multiply_adds / max(report.cost.multiply_adds, 1)
            flops = f"{2 * operator.multiply_adds / 1e9:.3f}"
            table.add_row(name, str(operator.nodes), flops, f"{share:.1%}", f"{operator.output_bytes / 1e6:.2f}")
        print(f"{report.role} in {report.precision}:")
        _print(table)


def _table(first: str, *others: str) -> Table:
    table = Table(first)
    for name in others:
        left = name in ("precision", "peak at")
        table.add_column(name, justify="left" if left else "right", overflow="fold" if left else "ellipsis")
    return table


def _figures(parameters: int, weight_bytes: int, flops: int, peak_bytes: int) -> tuple[str, ...]:
    return f"{parameters:,}", f"{weight_bytes / 1e6:.2f}", f"{flops / 1e9:.3f}", f"{peak_bytes / 1e6:.2f}"


def _print(table: Table) -> None:
    console = Console()
    (console if console.is_terminal else Console(width=LINE)).print(table)
