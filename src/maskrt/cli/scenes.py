"""`maskrt scenes`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from maskrt.cli.say import say
from maskrt.runtime.errors import InputError

Write = Callable[[int], None]  # draws the scene of a number and writes its files


def command(
    out: Annotated[Path, typer.Option("--out", help="Folder for the scenes.")],
    seed: Annotated[int, typer.Option(min=0, help="Number of the first scene; the next ones follow.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="How many scenes to draw.")] = 10,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Size in pixels; if left out, 1920x1080 for bedside and 768x768 for novel."),
    ] = None,
    domain: Annotated[
        Literal["bedside", "novel"], typer.Option(help="Kind of scene; the demo models have never seen novel ones.")
    ] = "bedside",
    family: Annotated[
        str | None, typer.Option(help="With --domain novel: draw this kind of thing only; each in turn if left out.")
    ] = None,
) -> None:
    """Draw scenes with exact ground truth.

    They serve tests and measurements without patients. Writes OUT/images and OUT/truth; for bedside scenes also
    OUT/instances and OUT/depth. A number gives the same scene on every machine. Bedside scene N is scene_00000N; its
    truth is 255 where an occlusion is, and its region of interest is in OUT/instances: maskrt run ... --roi-from
    OUT/instances. Novel scene N is novel_00000N and shows two to five things of one kind; its truth is 0 on the ground
    and 1, 2, ... on the things.

    Needs maskrt[demo]. Exit codes: 0 done, 1 failed, 2 unusable input or options, 130 stopped with Ctrl-C.

    \b
    Example:
      maskrt scenes --seed 900000 --count 2 --size 640x360 --out out/scenes
      maskrt run export/demo/bundle out/scenes/images --out out/run --roi-from out/scenes/instances
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
    say(f"{count} scenes in {out}")


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
