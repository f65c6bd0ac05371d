"""`maskrt eval --masks`, which scores a refiner."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from maskrt.cli.progress import FrameProgress, tell_notes
from maskrt.cli.say import say, say_table
from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.errors import InputError, NetworkError
from maskrt.runtime.evaluation.refine_metrics import RefineScores
from maskrt.runtime.files import write_bytes
from maskrt.runtime.io.masks import read_truth
from maskrt.runtime.io.sources import open_source
from maskrt.runtime.pipelines.base import kernel_set
from maskrt.runtime.pipelines.refine.pipeline import open_refiner, rough_reader
from maskrt.runtime.pipelines.run import SOME_FRAMES_FAILED
from maskrt.runtime.types import BadFrame


def score_refiner(
    bundle: Bundle,
    images: str,
    truth: Path,
    masks: Path,
    json: Path | None,
    provider: str,
    threads: int | None,
    kernels: str,
    settings: Mapping[str, Any],
    max_pixels: int,
    track: str | None,
) -> int:
    """Score rough masks and refined ones; see `maskrt eval` for the arguments.

    Returns:
        The exit code: 0, or 3 if some images have no score.
    """
    rough_of = rough_reader(masks, False, max_pixels)
    scores = {"rough": RefineScores(), "refined": RefineScores()}
    failed, fractions = [], []
    with (
        open_source(images, max_pixels, track) as source,
        open_refiner(with_settings(bundle, settings), provider, threads, kernel_set(kernels)) as refiner,
        FrameProgress(source.length, "images") as progress,
    ):
        for item in source:
            try:
                if isinstance(item, BadFrame):
                    raise InputError(item.reason)
                wanted, rough = read_truth(truth / f"{item.name}.png", max_pixels), rough_of(item.name)
                refined = refiner(item.rgb, rough)
                scores["rough"].add(wanted, rough > 0.5)
                scores["refined"].add(wanted, refined.mask)
                fractions.append(refined.decoded_fraction)
            except (InputError, NetworkError) as error:
                failed.append({"source": item.name, "reason": str(error)})
                progress.report(f"failed: {item.name}: {error}")
            progress.advance()
        tell_notes(source, progress)
    table = Table(box=None, pad_edge=False)
    for column in ("%", "IoU", "Dice", "mBA"):
        table.add_column(column, justify="left" if column == "%" else "right")
    for name, found in scores.items():
        table.add_row(name, *(f"{100 * score:.2f}" for score in (found.iou, found.dice, found.mba)))
    say_table(table)
    say(f"{len(fractions)} images; {100 * sum(fractions) / max(len(fractions), 1):.1f}% of the pixels decoded")
    bare = scores["refined"].without_boundary
    if bare:
        say(f"{bare} images whose truth has no boundary do not count for the mBA")
    if json is not None:
        import msgspec

        report = {
            "images": len(fractions),
            "failed": failed,
            "without_boundary": bare,
            "decoded_fraction": sum(fractions) / len(fractions) if fractions else None,
            **{name: {"iou": found.iou, "dice": found.dice, "mba": found.mba} for name, found in scores.items()},
        }
        write_bytes(json, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return SOME_FRAMES_FAILED if failed else 0
