"""`maskrt eval --masks`: a refiner's scores."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from maskrt.cli.options import parse_settings
from maskrt.cli.progress import FrameProgress
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.errors import InputError, NetworkError
from maskrt.runtime.evaluation.refine_metrics import RefineScores
from maskrt.runtime.files import write_bytes
from maskrt.runtime.io.images import read_truth
from maskrt.runtime.io.sources import open_source
from maskrt.runtime.pipelines.refine.pipeline import open_refiner, rough_reader
from maskrt.runtime.pipelines.run import SOME_FRAMES_FAILED
from maskrt.runtime.types import BadFrame


def score_refiner(
    bundle: Path,
    images: str,
    truth: Path,
    masks: Path,
    json: Path | None,
    provider: str,
    precision: str,
    threads: int | None,
    settings: list[str],
    max_megapixels: float,
) -> int:
    """Score rough masks and refined ones; arguments as of `maskrt eval`.

    Returns:
        The exit code: 0, or 3 when some images have no score.
    """
    if not truth.is_dir():
        raise InputError(f"{truth}: no such folder; it should hold a STEM.png per image")
    max_pixels = int(max_megapixels * 1e6)
    rough_of = rough_reader(masks, False, max_pixels)
    scores = {"rough": RefineScores(), "refined": RefineScores()}
    failed, fractions = [], []
    with (
        open_source(images, max_pixels) as source,
        open_refiner(open_bundle(bundle, precision), provider, threads, parse_settings(settings)) as refiner,
        FrameProgress(source.length, "images") as progress,
    ):
        for item in source:
            try:
                if isinstance(item, BadFrame):
                    raise InputError(item.reason)
                wanted, rough = read_truth(truth / f"{item.source}.png", max_pixels), rough_of(item.source)
                refined = refiner(item.rgb, rough)
                scores["rough"].add(wanted, rough > 0.5)
                scores["refined"].add(wanted, refined.mask)
                fractions.append(refined.decoded_fraction)
            except (InputError, NetworkError) as error:
                failed.append({"source": item.source, "reason": str(error)})
                progress.report(f"failed: {item.source}: {error}")
            progress.advance()
    table = Table(box=None, pad_edge=False)
    for column in ("%", "IoU", "Dice", "mBA"):
        table.add_column(column, justify="left" if column == "%" else "right")
    for name, found in scores.items():
        table.add_row(name, *(f"{100 * score:.2f}" for score in (found.iou, found.dice, found.mba)))
    console = Console()
    console.print(table)
    console.print(
        f"{len(fractions)} images; {100 * sum(fractions) / max(len(fractions), 1):.1f}% of the pixels decoded"
    )
    bare = scores["refined"].without_boundary
    if bare:
        console.print(f"{bare} images whose truth has no boundary do not count for the mBA")
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
