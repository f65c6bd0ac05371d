"""A pipeline without networks: bright pixels are the mask, and one segment covers them. Run as a program it is a
batch that kills itself at the Nth thing it does to a file: python fake_pipeline.py SOURCE OUT N. With an N of 0 it ends
and prints how many there are."""

import itertools
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from maskrt.runtime.batching import attempt
from maskrt.runtime.errors import InputError, NetworkError, OutOfMemory
from maskrt.runtime.io.records import RunSettings
from maskrt.runtime.io.sinks import WRITERS, FolderSink
from maskrt.runtime.io.sources import open_source
from maskrt.runtime.pipelines.run import run_batch
from maskrt.runtime.region import checked_roi, in_frame
from maskrt.runtime.rle import encode_rle
from maskrt.runtime.types import Frame, Result, Roi, Segments

SETTINGS = RunSettings("f" * 64, ("background", "occlusion"), {"provider": "cpu"})


class FakePipeline:
    """Counts its calls; fails on a frame whose first pixel is 13, and on a whole batch with one whose first is 214."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.batches: list[int] = []

    def batch(self, frames: Sequence[Frame], rois: Sequence[Roi | None]) -> list[Result | InputError | NetworkError]:
        self.batches.append(len(frames))
        if any(frame.rgb[0, 0, 0] == 214 for frame in frames):
            raise OutOfMemory("encoder.onnx ran out of memory")
        return [attempt(partial(self, frame, roi)) for frame, roi in zip(frames, rois, strict=True)]

    def __call__(self, frame: Frame, roi: Roi | None = None) -> Result:
        self.calls.append(frame.name)
        if frame.rgb[0, 0, 0] == 13:
            raise NetworkError("decoder.onnx returned NaN or infinity in low_res_masks: check the input")
        roi = checked_roi(frame.rgb, roi)
        x, y, width, height = roi
        size_hw = frame.rgb.shape[0], frame.rgb.shape[1]
        grey = in_frame(frame.rgb[y : y + height, x : x + width].mean(axis=2).astype(np.float32), roi, size_hw)
        mask = grey > 127
        rows, columns = np.nonzero(mask)
        found = int(mask.any())
        box = [[columns.min(), rows.min(), columns.max(), rows.max()]] if found else []
        segments = Segments(
            size_hw=size_hw,
            rles=(encode_rle(mask),) * found,
            boxes_xyxy=np.array(box, np.int32).reshape(-1, 4),
            points_xy=np.ones((found, 2)),
            pred_iou=np.full(found, 0.9, np.float32),
            stability_score=np.full(found, 0.95, np.float32),
            area=np.array([mask.sum()] * found, np.int64),
        )
        classes = np.ones(found, np.int64)
        return Result(
            mask, mask.astype(np.uint8), (grey / 255).astype(np.float32), roi, segments, classes, {"fake": 1.23456}
        )


def run_fake(source: Path, out: Path, resume: bool) -> None:
    """A batch that writes everything."""
    with open_source(str(source)) as frames, FolderSink(out, tuple(WRITERS), SETTINGS, resume) as sink:
        run_batch(FakePipeline(), frames, sink, resume=resume)


def count_operations(out: Path, fatal: int) -> Iterator[int]:
    """Count what this process does to files under `out`, and kill it before the operation of number `fatal`.

    A write that is fatal is half done. Returns the counter: its next value is one more than what was counted.
    """
    counter, write, fsync = itertools.count(1), os.write, os.fsync

    def die(now: bool) -> None:
        if now:
            os.kill(os.getpid(), signal.SIGKILL)

    def audited(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(arguments[0]).startswith(str(out)):
            die(next(counter) == fatal)

    def half_written(descriptor: int, data: bytes) -> int:
        if next(counter) == fatal:
            write(descriptor, data[: len(data) // 2])
            die(True)
        return write(descriptor, data)

    def synced(descriptor: int) -> None:
        die(next(counter) == fatal)
        fsync(descriptor)

    vars(os).update(write=half_written, fsync=synced)
    sys.addaudithook(audited)
    return counter


if __name__ == "__main__":
    counter = count_operations(Path(sys.argv[2]), int(sys.argv[3]))
    run_fake(Path(sys.argv[1]), Path(sys.argv[2]), resume=False)
    print(next(counter) - 1)
