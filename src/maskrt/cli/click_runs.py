"""Runs `maskrt eval-interactive`: checks all pictures, then segments them with each configuration in turn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrt.cli.click_scores import SequenceFigures
from maskrt.cli.interrupt import INTERRUPTS, Interrupted, is_interrupt
from maskrt.cli.progress import FrameProgress, tell_notes
from maskrt.runtime.bundle.bundle import MANIFEST, Bundle
from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.click_metrics import Limit
from maskrt.runtime.evaluation.click_objects import ClickPicture, Planned, Survey, read_pictures, survey
from maskrt.runtime.evaluation.click_sequence import Failed, ProtocolName, SequenceSettings
from maskrt.runtime.evaluation.clicks import CONFIGURATIONS, learnt_from, run_sequence
from maskrt.runtime.files import sha256_of
from maskrt.runtime.interactive.session import open_interactive
from maskrt.runtime.io.sources import open_source


@dataclass(frozen=True)
class Pictures:
    """The pictures to click on; images: see open_source; truth: the folder; max_pixels: limit of image and truth."""

    images: str
    truth: Path
    min_area: int
    max_pixels: int
    survey: Survey

    def read(self, planned: list[Planned]) -> Iterator[ClickPicture]:
        """Read some of the pictures, in order, one at a time."""
        with open_source(self.images, self.max_pixels) as source:
            yield from read_pictures(source, self.truth, planned, self.max_pixels)


def open_survey(images: str, truth: Path, min_area: int, max_pixels: int) -> Pictures:
    """Check all pictures, and report what is left out.

    Raises:
        InputError: there is no folder of truth, or no object to click on.
    """
    if not truth.is_dir():
        raise InputError(f"{truth}: no such folder; it should hold a STEM.png per image")
    with open_source(images, max_pixels) as source, FrameProgress(source.length, "images") as progress:

        def tell(name: str, reason: str | None) -> None:
            if reason is not None:
                progress.report(f"failed: {name}: {reason}")
            progress.advance()

        found = survey(source, truth, min_area, max_pixels, tell)
        tell_notes(source, progress)
        if found.left_out:
            progress.report(f"left out: {found.left_out} objects under --min-area {min_area} pixels")
    if not found.objects:
        raise InputError(f"{images}: no object to click on: check --truth, or lower --min-area {min_area}")
    return Pictures(images, truth, min_area, max_pixels, found)


@dataclass(frozen=True)
class ClickRun:
    """The bundle to measure, and the settings of the measurement.

    overrides: settings besides the configurations' own; failed: what the user does with an object that is not good
    enough after the last click; protocol: see maskrt.runtime.evaluation.clicks.
    """

    bundle: Bundle
    overrides: Mapping[str, Any]
    provider: str
    threads: int | None
    failed: Failed
    protocol: ProtocolName


def run_all(
    run: ClickRun, pictures: Pictures, names: Sequence[str], limits: Sequence[Limit], out: Path
) -> list[SequenceFigures]:
    """Run every configuration at every limit, except for results that OUT already holds.

    Raises:
        InputError: an override is a configuration's own, or OUT holds another run.
        Interrupted: the user pressed Ctrl-C; the message says what is kept and how to go on.
    """
    _check_overrides(run.overrides)
    found: list[SequenceFigures] = []
    with FrameProgress(pictures.survey.objects * len(names) * len(limits), "objects") as progress:
        try:
            for name in names:
                found += _run_configuration(run, pictures, name, limits, out, progress)
        except INTERRUPTS as error:
            if not is_interrupt(error):
                raise
            raise Interrupted(f"interrupted: the same command again goes on from {out}") from error
    return found


def _run_configuration(
    run: ClickRun, pictures: Pictures, name: str, limits: Sequence[Limit], out: Path, progress: FrameProgress
) -> Iterator[SequenceFigures]:
    """Run one configuration at every limit, each from the same fresh decoder."""
    options = {**run.overrides, **learnt_from(name, run.protocol)}
    identity = sha256_of(run.bundle.path / MANIFEST), options, run.provider
    surveyed = pictures.min_area, pictures.survey.sha256()
    with open_interactive(run.bundle, run.provider, run.threads, options, cache_dir=out / "embeddings") as session:
        start = session.state()
        for limit in limits:
            settings = SequenceSettings(*identity, limit.name, run.failed, *surveyed, run.protocol)
            file = out / f"{name}-{limit.name}.safetensors"
            planned = pictures.survey.planned
            sequence = run_sequence(session, start, planned, pictures.read, limit, settings, file, progress.advance)
            yield SequenceFigures.of(name, limit, sequence)


def _check_overrides(overrides: Mapping[str, Any]) -> None:
    own = sorted(set(overrides) & set(CONFIGURATIONS["none"]))
    if own:
        raise InputError(f"--set {own[0]}: the configurations decide what is learnt from: choose them with --configs")
