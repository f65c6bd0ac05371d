"""Every command and every Python block in README and docs is run, page by page, as a reader would.

A block below a comment `<!-- needs: WHAT -->` needs an extra, and is run where that is installed; or it needs what is
not here (a checkpoint, a GPU, a network), and its `maskrt` commands must exist all the same, with options they have.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer

from maskrt.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"(?:^<!-- needs: ([^\n]*?) -->\n)?^```(sh|python)\n(.*?)^```$", re.M | re.S)
# Extra -> a module that it installs.
EXTRAS = {"export": "torch", "openvino": "openvino"}
ELSEWHERE = {
    "annotate",
    "checkpoint",
    "development environment",
    "gpu",
    "interactive shell",
    "label-studio",
    "network",
    "time",
}
MARKER = re.compile(r"<!-- (?:code|todo)\b")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. needs: empty where it is run anywhere."""

    page: Path
    language: str
    text: str
    needs: str


def blocks_of(page: Path) -> list[Block]:
    return [Block(page, found[2], found[3], found[1] or "") for found in FENCE.finditer(page.read_text())]


def runnable(page: Path) -> list[Block]:
    return [
        block
        for block in blocks_of(page)
        if not block.needs or (block.needs in EXTRAS and find_spec(EXTRAS[block.needs]) is not None)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_block_needs_is_known(page: Path) -> None:
    assert {block.needs for block in blocks_of(page)} <= {"", *EXTRAS, *ELSEWHERE}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with everything that the commands read, where they may write."""
    for name in ("export/demo", "docs", "README.md"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.docs
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=lambda page: page.name)
def test_what_a_page_shows_works(page: Path, checkout: Path) -> None:
    """Shell blocks run as they are with `maskrt` on the path, Python blocks in one interpreter each."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for block in runnable(page):
        command = ["bash", "-euo", "pipefail", "-c", block.text]
        if block.language == "python":
            command = [sys.executable, "-c", block.text]
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{page.name}:\n{block.text}\n{done.stdout}{done.stderr}"


def commands_of(block: Block) -> Iterator[list[str]]:
    """The `maskrt` commands of a shell block, as words."""
    if block.language != "sh":
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "maskrt":
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    group = typer.main.get_command(app)
    for block in blocks_of(page):
        for words in commands_of(block):
            if words and words[0].startswith("--"):  # options of maskrt itself
                continue
            command = group
            while words and hasattr(command, "commands"):
                assert words[0] in command.commands, f"{page.name}: no command {words[0]}"
                command, words = command.commands[words[0]], words[1:]
            known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h", "--debug"}
            given = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
            assert set(given) <= known, f"{page.name}: {command.name} has no {sorted(set(given) - known)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links, in the pages that mkdocs does not build too."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_is_short_and_cites_its_sources() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.encode()) <= 10_000
    for title in (
        "Hybrid Deep Learning-Based for Enhanced Occlusion",
        "Adapting the Segment Anything Model During Usage in Novel Situations",
        "Enhancing high-resolution segmentation",
        "Learning radiological and oncological anatomy",
        "Two-stage Semantic Segmentation in Neural Networks",
    ):
        assert title in " ".join(readme.split()), title


def test_nothing_is_left_to_fill_in() -> None:
    assert [page.name for page in PAGES if MARKER.search(page.read_text())] == []


def test_bash_is_here() -> None:
    """Or the blocks above would not have been run."""
    assert shutil.which("bash")
