"""Writing of results to a folder: one file per frame and kind, and results.jsonl with one line per frame.

OUT/mask/STEM.png         0 or 255: the class of interest
OUT/label/STEM.png        the class number of every pixel
OUT/probability/STEM.png  16 bits; value / 65535 is the segmenter's probability of the class of interest
OUT/segments/STEM.json    segments in COCO style, run lengths uncompressed
OUT/overlay/STEM.png      mask and region of interest over the image; contains the image, so only on request
OUT/results.jsonl         a Record per frame; where a frame has several lines, the last one holds
"""

import errno
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskrt.runtime.closeable import Closeable
from maskrt.runtime.errors import InputError
from maskrt.runtime.files import cannot_write, longest_name, remove_leftovers, sha256_of, write_bytes
from maskrt.runtime.io.overlay import overlay
from maskrt.runtime.io.records import RESULTS, Record, Records, RunSettings, sha256_of_pixels
from maskrt.runtime.types import BadFrame, Frame, Result, Roi, Segments


class Sink(Protocol):
    """A place for the outcome of every frame, for use in a `with` block."""

    def check(self, name: str) -> None: ...

    def is_done(self, frame: Frame, roi: Roi) -> bool: ...

    def write(self, frame: Frame, result: Result) -> None: ...

    def write_failure(self, frame: Frame | BadFrame, reason: str) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class FolderSink(Closeable):
    """A folder of results. It writes each file atomically, and a frame's line after its files."""

    def __init__(self, out: Path, kinds: tuple[str, ...], settings: RunSettings, resume: bool = False) -> None:
        """Open or create the folder.

        Args:
            out: new, empty, or with `resume` one that an earlier run wrote.
            kinds: keys of WRITERS.
            settings: this run's; a frame done with other settings does not count as done.

        Raises:
            InputError: an unknown kind, or a folder that holds something else.
            MaskrtError: the folder cannot be written.
        """
        unknown = [kind for kind in kinds if kind not in WRITERS]
        if unknown or not kinds:
            raise InputError(f"cannot write {', '.join(unknown) or 'nothing'}; maskrt writes: {', '.join(WRITERS)}")
        _check_folder(out, resume)
        self._out = out
        self._kinds = kinds
        self._settings = settings
        self._records = Records(out / RESULTS)
        self._longest = longest_name(out)
        for kind in WRITERS:
            remove_leftovers(out / kind)

    @property
    def differing(self) -> int:
        """The number of earlier frames that were done with another bundle or other options, and will be done again."""
        return sum(record.status == "ok" and record.settings != self._settings for record in self._records)

    def check(self, name: str) -> None:
        """Check that the results of a frame of this name can be written.

        Raises:
            InputError: a file's name would be longer than the disk takes.
        """
        suffix = max((WRITERS[kind][0] for kind in self._kinds), key=len)
        size = len(f"{name}{suffix}".encode())
        if size > self._longest:
            raise InputError(
                f"its results would have names of {size} bytes, {self._out} takes {self._longest}: rename the input"
            )

    def is_done(self, frame: Frame, roi: Roi) -> bool:
        """Return whether an earlier run did this very frame with these settings, and its files are what it wrote."""
        record = self._records.find(frame.name)
        if record is None or record.status != "ok" or record.settings != self._settings:
            return False
        if record.roi_xywh != roi or record.frame_sha256 != sha256_of_pixels(frame.rgb):
            return False
        wanted = [self._relative(kind, frame.name) for kind in self._kinds]
        return all(self._is_intact(path, record.files.get(path)) for path in wanted)

    def write(self, frame: Frame, result: Result) -> None:
        """Write the frame's files, then its line.

        Raises:
            MaskrtError: the disk does not take them.
        """
        files = {}
        for kind in self._kinds:
            path = self._relative(kind, frame.name)
            write_bytes(self._out / path, WRITERS[kind][1](frame, result, self._settings.classes))
            files[path] = sha256_of(self._out / path)
        self._remove(frame.name, keep=files)
        self._records.append(
            Record(
                name=frame.name,
                index=frame.index,
                timestamp_us=frame.timestamp_us,
                status="ok",
                roi_xywh=result.roi_xywh,
                frame_sha256=sha256_of_pixels(frame.rgb),
                files=files,
                segments=len(result.segments),
                timings_ms={stage: round(value, 3) for stage, value in result.timings_ms.items()},
                settings=self._settings,
                stages=result.stages,
            )
        )

    def write_failure(self, frame: Frame | BadFrame, reason: str) -> None:
        """Write the line of a frame without result, and remove what an earlier run wrote for it."""
        self._remove(frame.name, keep={})
        timestamp_us = frame.timestamp_us if isinstance(frame, Frame) else None
        self._records.append(
            Record(frame.name, frame.index, timestamp_us, status="failed", reason=reason, settings=self._settings)
        )

    def _relative(self, kind: str, name: str) -> str:
        return f"{kind}/{name}{WRITERS[kind][0]}"

    def _is_intact(self, path: str, sha256: str | None) -> bool:
        file = self._out / path
        return sha256 is not None and file.is_file() and sha256_of(file) == sha256

    def _remove(self, name: str, keep: dict[str, str]) -> None:
        """Remove the frame's files of other kinds: they would be from an earlier run with other settings."""
        for kind in WRITERS:
            path = self._relative(kind, name)
            if path not in keep:
                try:
                    (self._out / path).unlink(missing_ok=True)
                except OSError as error:
                    if error.errno != errno.ENAMETOOLONG:  # then no run can have written it
                        raise cannot_write(self._out / path, error) from error

    def close(self) -> None:
        """Close the record of the run."""
        self._records.close()


def coco_segments(segments: Segments, segment_classes: NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, Any]:
    """Convert segments to segment_anything's JSON, with their class.

    bbox is x, y, width, height of the pixels covered, as pycocotools has it; segment_anything's own is one smaller
    each way. `pycocotools.mask.frPyObjects` takes the run lengths as they are.
    """
    rows = zip(
        segments.rles,
        segments.boxes_xyxy.tolist(),
        segments.points_xy.tolist(),
        segments.area.tolist(),
        segments.pred_iou.tolist(),
        segments.stability_score.tolist(),
        segment_classes.tolist(),
        strict=True,
    )
    return {
        "size": list(segments.size_hw),
        "segments": [
            {
                "segmentation": rle,
                "bbox": [x0, y0, x1 - x0 + 1, y1 - y0 + 1],
                "area": area,
                "predicted_iou": pred_iou,
                "stability_score": stability_score,
                "point_coords": [point],
                "class": number,
                "class_name": classes[number],
            }
            for rle, (x0, y0, x1, y1), point, area, pred_iou, stability_score, number in rows
        ],
    }


def png_bytes(values: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Encode grey [H, W] in 8 or 16 bits, or RGB [H, W, 3], as a PNG file."""
    buffer = BytesIO()
    # Level 1: at 1920 x 1080 half the time of Pillow's default for a photograph, and masks are small anyway.
    Image.fromarray(values).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _mask(frame: Frame, result: Result, classes: tuple[str, ...]) -> bytes:
    return png_bytes(result.mask.astype(np.uint8) * np.uint8(255))


def _label(frame: Frame, result: Result, classes: tuple[str, ...]) -> bytes:
    return png_bytes(result.label)


def _probability(frame: Frame, result: Result, classes: tuple[str, ...]) -> bytes:
    return png_bytes((np.clip(result.probability, 0, 1) * 65535 + 0.5).astype(np.uint16))


def _segments(frame: Frame, result: Result, classes: tuple[str, ...]) -> bytes:
    return msgspec.json.encode(coco_segments(result.segments, result.segment_classes, classes)) + b"\n"


def _overlay(frame: Frame, result: Result, classes: tuple[str, ...]) -> bytes:
    return png_bytes(overlay(frame.rgb, result.mask, result.roi_xywh))


# Kind -> suffix of its files, and what makes their bytes from frame, result and class names.
WRITERS: dict[str, tuple[str, Callable[[Frame, Result, tuple[str, ...]], bytes]]] = {
    "mask": (".png", _mask),
    "overlay": (".png", _overlay),
    "segments": (".json", _segments),
    "probability": (".png", _probability),
    "label": (".png", _label),
}


def _check_folder(out: Path, resume: bool) -> None:
    """Refuse a folder in which this run could overwrite something."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: choose a folder for --out")
    if not out.is_dir() or not any(os.scandir(out)):
        return
    if not (out / RESULTS).is_file():
        raise InputError(f"{out} is not empty and holds no {RESULTS}: choose a new or empty folder for --out")
    if not resume and (out / RESULTS).stat().st_size > 0:
        raise InputError(f"{out} holds an earlier run: add --resume to continue it, or choose another --out")
