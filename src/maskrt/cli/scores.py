"""Prints scores as a table, for every command that shows them."""

from rich.console import Console
from rich.table import Table

from maskrt.runtime.evaluation.compare import Scores


def print_scores(scores: Scores) -> None:
    """Print every metric of every method in percent, on stdout."""
    table = Table("percent", *scores.methods, title=f"{scores.images} images", title_justify="left")
    for name, values in scores.rows():
        table.add_row(name, *values)
    Console().print(table)
