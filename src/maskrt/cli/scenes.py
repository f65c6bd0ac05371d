"""`maskrt scenes`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from maskrt.runtime.errors import InputError

Write = Callable[[int], None]  # draws the scene of a number and writes its files


def command(
    out: Annotated[Path, typer.Option("--out", help="Folder for images/ and truth/; bedside: instances/, depth/ too.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the first scene; the next ones follow.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="In pixels; 1920x1080 of bedside, 768x768 of novel if left out.")
    ] = None,
    domain: Annotated[
        Literal["bedside", "novel"], typer.Option(help="novel: kinds that the demo models were not trained on.")
    ] = "bedside",
    family: Annotated[
        str | None, typer.Option(help="Of novel: the one kind to draw; each in turn if left out.")
    ] = None,
) -> None:
    """Draw scenes with exact ground truth, for tests and measurements without patients.

    Bedside scene N is scene_00000N wherever it is drawn, its truth 255 where an occlusion is. Regions of interest:
    maskrt run ... --roi-from OUT/instances. Novel scene N is novel_00000N: two to five things of one kind; its truth
    has 0 for the ground and 1, 2, ... for the thing that is seen at a pixel.

    \b
    Example:
      maskrt scenes --seed 100 --count 5 --size 960x540 --out out/scenes
      maskrt scenes --domain novel --family stars --out out/stars
    """
    from maskrt.cli.progress import FrameProgress

    if domain == "bedside":
        if family is not None:
            raise InputError("--family is an option of --domain novel: leave one out or give both")
        write = _bedside(size, out)
    else:
        write = _novel(size, family, out)
    with FrameProgress(count, "scenes") as progress:
        for number in range(seed, seed + count):
            write(number)
            progress.advance()
    print(f"{count} scenes in {out}")


def _bedside(size: str | None, out: Path) -> Write:
    from maskrt.benchmarks.scenes.bedside import draw_scene, write_scene
    from maskrt.cli.options import parse_size

    size_wh = parse_size("1920x1080" if size is None else size)
    return lambda number: write_scene(draw_scene(number, size_wh), f"scene_{number:06d}", out)


def _novel(size: str | None, family: str | None, out: Path) -> Write:
    from maskrt.benchmarks.scenes.novel import NOVEL_WH, draw_novel, write_novel
    from maskrt.cli.options import parse_size

    size_wh = NOVEL_WH if size is None else parse_size(size)
    return lambda number: write_novel(draw_novel(number, size_wh, family), f"novel_{number:06d}", out)
