"""`maskrt scenes`."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[Path, typer.Option("--out", help="Folder for images/, truth/, instances/, depth/.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the first scene; the next ones follow.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    size: Annotated[str, typer.Option(metavar="WxH", help="In pixels.")] = "1920x1080",
) -> None:
    """Draw bedside scenes with exact ground truth, for tests and measurements without patients.

    Scene N is scene_00000N wherever it is drawn. Regions of interest: maskrt run ... --roi-from OUT/instances

    \b
    Example:
      maskrt scenes --seed 100 --count 5 --size 960x540 --out out/scenes
    """
    from maskrt.benchmarks.scenes import draw_scene, write_scene
    from maskrt.cli.options import parse_size
    from maskrt.cli.progress import FrameProgress

    size_wh = parse_size(size)
    with FrameProgress(count, "scenes") as progress:
        for number in range(seed, seed + count):
            write_scene(draw_scene(number, size_wh), f"scene_{number:06d}", out)
            progress.advance()
    print(f"{count} scenes in {out}")
