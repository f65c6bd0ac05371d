"""Runs a command that writes a folder of results: progress, Ctrl-C, the last line, the exit code."""

from pathlib import Path

from maskrt.cli.interrupt import INTERRUPTS, Interrupted, is_interrupt
from maskrt.cli.progress import FrameProgress
from maskrt.runtime.io.regions import RoiOf
from maskrt.runtime.io.sinks import FolderSink
from maskrt.runtime.io.sources import Source
from maskrt.runtime.pipelines.run import Outcome, Pipeline, run_batch
from maskrt.runtime.types import Roi


def run_with_progress(
    pipeline: Pipeline,
    source: Source,
    sink: FolderSink,
    out: Path,
    region: Roi | RoiOf | None,
    resume: bool,
    unit: str,
    batch: int = 1,
) -> int:
    """Run every frame and report progress; the caller opens and closes pipeline, source and sink.

    Args:
        out: the sink's folder.
        unit: name of the frames in messages, "frames" or "images".
        batch: how many frames run at a time.

    Returns:
        The exit code: 0, or 3 when some frames have no result.

    Raises:
        Interrupted: the user pressed Ctrl-C; the message says what is done and how to go on.
    """
    done = 0
    with FrameProgress(source.length, unit) as progress:
        if sink.differing:
            what = "another bundle, other masks or other options"
            progress.report(f"{sink.differing} {unit} were done with {what}: doing them again")

        def tell(outcome: Outcome) -> None:
            nonlocal done
            done += outcome.status != "failed"
            if outcome.status == "failed":
                progress.report(f"failed: {outcome.name}: {outcome.reason}")
            progress.advance(worked=outcome.status != "skipped")

        try:
            summary = run_batch(pipeline, source, sink, region, resume, tell, batch)
            for note in source.notes:
                progress.report(note)
        except INTERRUPTS as error:
            if not is_interrupt(error):
                raise
            kept = f"interrupted: {done} {unit} are in {out}; the same command with --resume does the rest"
            raise Interrupted(kept) from error
    print(f"{summary.done} done, {summary.skipped} skipped, {summary.failed} failed: {out}")
    return summary.exit_code
