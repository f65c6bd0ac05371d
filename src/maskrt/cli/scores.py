"""Prints scores as a table, for every command that shows them."""

from rich.table import Table

from maskrt.cli.say import cells, say_table
from maskrt.runtime.evaluation.compare import Scores


def print_scores(scores: Scores) -> None:
    """Print every metric of every method in percent, on stdout."""
    table = Table("percent", *scores.methods, title=f"{scores.images} images", title_justify="left")
    for name, values in scores.rows():
        table.add_row(*cells(name, *values))
    say_table(table)
