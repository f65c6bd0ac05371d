"""Docstrings begin with what a thing does or is, and no source names a path outside the project."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("runtime", "kernels", "export", "benchmarks", "src/maskrt/cli", "tests")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)
BEGINNINGS = re.compile(r"(Of|What|As of)\b")
# Folders of one person's machine, and whatever lies beside the checkout; tests may name places that do not exist.
OUTSIDE = re.compile(r"""(?<![\w./~-])(?:/(?:home|root|mnt|media|Users|work|workspace|srv|opt)/|~/)\w""")


def documented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and the docstring of the module and of every class and function in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield getattr(node, "lineno", 1), text


def test_every_folder_is_looked_into() -> None:
    assert all(any(path.is_relative_to(ROOT / folder) for path in FILES) for folder in FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_how_docstrings_begin(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text.partition(chr(10))[0]}"
        for path in FILES
        if path.is_relative_to(ROOT / folder)
        for line, text in documented(ast.parse(path.read_text()))
        if BEGINNINGS.match(text)
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_path_outside_the_project(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in FILES
        if path.is_relative_to(ROOT / folder) and path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if OUTSIDE.search(line)
    ]
    assert wrong == []


@pytest.mark.parametrize("text", ["Of a mask.", "What it is.", "As of carry_mask()."])
def test_beginnings_that_are_found(text: str) -> None:
    (found,) = documented(ast.parse(f'def f():\n    """{text}"""\n'))
    assert found == (1, text)
    assert BEGINNINGS.match(text)
    assert not BEGINNINGS.match("Offsets of a mask.")


@pytest.mark.parametrize("line", ["# see /home/ann/notes", "open('~/data')", "x = '/srv/data'"])
def test_paths_that_are_found(line: str) -> None:
    assert OUTSIDE.search(line)


@pytest.mark.parametrize("line", ["a/home/b", "https://x.org/home/ann", "/tmp/x", "/proc/cpuinfo", "1 /opt", "x~/2"])
def test_paths_that_are_none(line: str) -> None:
    assert not OUTSIDE.search(line)
