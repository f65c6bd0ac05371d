"""Prints scores as a table, for every command that shows them."""

from rich.table import Table

from maskrt.cli.say import cells, say_table
from maskrt.runtime.evaluation.class_scores import ClassFigures, ClassScores
from maskrt.runtime.evaluation.compare import POOLED, Scores, percent


def print_scores(scores: Scores) -> None:
    """Print every metric of every method in percent, on stdout."""
    table = Table("percent", *scores.methods, title=f"{scores.images} images", title_justify="left")
    for name, values in scores.rows():
        table.add_row(*cells(name, *values))
    say_table(table)


def print_class_scores(scores: ClassScores) -> None:
    """Print two tables in percent, pooled and per image: a row for each class of each method, and their mean."""
    for way, methods in scores.figures().items():
        what = "pooled over all pixels of" if way == POOLED else "per image, the mean over"
        title = f"{what} {scores.images} images"
        names = ClassFigures.__struct_fields__
        table = Table("method", "class", *(f"{name} %" for name in names), title=title, title_justify="left")
        for method, found in methods.items():
            for name, figures in [*found.classes.items(), ("mean", found.mean)]:
                table.add_row(*cells(method, name, *(percent(getattr(figures, score)) for score in names)))
            table.add_section()
        say_table(table)
