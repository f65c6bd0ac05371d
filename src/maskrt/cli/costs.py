"""Prints the costs of graphs as tables."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from maskrt.cli.say import cells, say, say_table

if TYPE_CHECKING:  # it needs onnx
    from maskrt.export.bundles.inspection import GraphReport, Total


def print_costs(reports: "tuple[GraphReport, ...]", totals: "Mapping[str, Total]") -> None:
    """Print every graph's figures, the totals, the assumed sizes, and what could not be counted, on stdout."""
    table = _table("graph", "precision", "parameters", "weights MB", "GFLOPs", "peak MB")
    for report in reports:
        cost = report.cost
        row = ("?",) * 4 if cost is None else _figures(cost.parameters, cost.weight_bytes, cost.flops, cost.peak_bytes)
        table.add_row(*cells(report.role, report.precision), *row)
    table.add_section()
    for precision, total in totals.items():
        count = f"{total.graphs} of {total.graphs + len(total.left_out)}" if total.left_out else str(total.graphs)
        row = _figures(total.parameters, total.weight_bytes, total.flops, total.peak_bytes)
        table.add_row(f"{count} graphs", precision, *row)
    say_table(table)
    for report in reports:
        sizes = ", ".join(f"{name} {'x'.join(map(str, report.inputs[name]))}" for name in report.dynamic)
        where = f"{report.role} in {report.precision}{' at ' if sizes else ''}{sizes}"
        say(
            f"{where}: not counted: {report.problem}"
            if report.cost is None
            else f"{where}: peak at {report.cost.peak_at}"
        )


def print_operators(reports: "tuple[GraphReport, ...]") -> None:
    """Print every graph's operators with their share of its products, on stdout; also those without products."""
    for report in reports:
        if report.cost is None:
            continue
        table = _table("operator", "nodes", "GFLOPs", "share", "writes MB")
        for name, operator in report.cost.operators.items():
            share = operator.multiply_adds / max(report.cost.multiply_adds, 1)
            flops = f"{2 * operator.multiply_adds / 1e9:.3f}"
            table.add_row(
                *cells(name), str(operator.nodes), flops, f"{share:.1%}", f"{operator.output_bytes / 1e6:.2f}"
            )
        say(f"{report.role} in {report.precision}:")
        say_table(table)


def _table(*columns: str) -> Table:
    """Make a table with names on the left and figures on the right."""
    table = Table()
    for name in columns:
        table.add_column(name, justify="left" if name in ("graph", "precision", "operator") else "right")
    return table


def _figures(parameters: int, weight_bytes: int, flops: int, peak_bytes: int) -> tuple[str, ...]:
    return f"{parameters:,}", f"{weight_bytes / 1e6:.2f}", f"{flops / 1e9:.3f}", f"{peak_bytes / 1e6:.2f}"
