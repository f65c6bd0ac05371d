"""The frames of a video as a source."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from maskrt.runtime.closeable import Closeable
from maskrt.runtime.errors import InputError
from maskrt.runtime.io.decoding import MAX_PIXELS, check_size
from maskrt.runtime.io.video.container import open_video, reason_of
from maskrt.runtime.io.video.decoding import Bad, Decoder, other_size
from maskrt.runtime.io.video.picture import refusal, rgb_of
from maskrt.runtime.io.video.tracks import choose_track
from maskrt.runtime.types import BadFrame, Frame


class VideoSource(Closeable):
    """One video track, every frame in order, as VIDEO_000000, VIDEO_000001, ...; it can be iterated once.

    timestamp_us is the presentation time since the start of the file's clock. Frames are upright, as the display matrix
    says. A frame that is damaged, or that follows damage before the next key frame, is a BadFrame; what is missing ends
    in one. Video codecs carry no checksums: docs/inputs.md has what remains unnoticed.
    """

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS, track: str | None = None) -> None:
        """Open a video.

        Args:
            max_pixels: larger videos are refused.
            track: number or title of the track; needed where several have pictures.

        Raises:
            InputError: it cannot be taken as certain pictures; see open_video, choose_track and refusal.
        """
        self._path = path
        self._video = open_video(path, max_pixels)
        try:
            self._stream = choose_track(path, self._video.container, track)
            context = self._stream.codec_context
            self._size_wh = context.width, context.height
            check_size(str(path), self._size_wh, max_pixels)
            decoder = self._decoder = Decoder(self._video, self._stream)
            # The first frame says what no header does, such as how to turn it. It is refused before work starts.
            first = next(decoder, None)
            unfit = None if first is None or isinstance(first, Bad) else refusal(first)
            if unfit:
                raise InputError(f"{path} {unfit}")
            self._items: Iterator[Any] = decoder if first is None else chain((first,), decoder)
            self._notes = self._unlike_players(first)
        except BaseException:
            self._video.close()
            raise

    @property
    def length(self) -> int | None:
        """The number of frames that the container states, if it does."""
        return int(self._stream.frames) or None

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that a user should see about the video as a whole; complete once all frames were read."""
        gaps = self._decoder.gaps()
        return self._notes if gaps is None else (*self._notes, f"{self._path}: {gaps}")

    def __iter__(self) -> Iterator[Frame | BadFrame]:
        for index, item in enumerate(self._items):
            name = f"{self._path.stem}_{index:06d}"
            reason = item.reason if isinstance(item, Bad) else self._unfit(item)
            if reason is not None:
                yield BadFrame(index, name, f"{self._path}: {reason}")
                continue
            try:
                rgb = rgb_of(item)
            except (self._video.av.error.FFmpegError, ValueError) as error:
                said = f"{item.format.name} cannot be converted to RGB ({reason_of(error)}): convert the video first"
                yield BadFrame(index, name, f"{self._path}: {said}")
                continue
            timestamp_us = None if item.time is None else round(item.time * 1e6)
            yield Frame(rgb, index, name, timestamp_us)

    def _unfit(self, frame: Any) -> str | None:
        size_wh = frame.width, frame.height
        if size_wh != self._size_wh:
            return other_size(size_wh, self._size_wh)
        unfit = refusal(frame)
        return None if unfit is None else f"the frame {unfit}"

    def _unlike_players(self, first: Any) -> tuple[str, ...]:
        """Say what a player does with these frames and maskrt does not."""
        notes = []
        aspect = self._stream.sample_aspect_ratio
        if aspect and aspect != 1:
            notes.append(
                f"{self._path}: pixels are {aspect.numerator}:{aspect.denominator}, not square; they are used as stored"
            )
        if first is not None and not isinstance(first, Bad) and first.interlaced_frame:
            notes.append(f"{self._path}: frames are interlaced; each is used as stored, with the lines of both fields")
        return tuple(notes)

    def close(self) -> None:
        """Close the file."""
        self._video.close()
