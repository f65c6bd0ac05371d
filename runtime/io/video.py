"""Reading of a video file through PyAV; damage is reported instead of passed on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskrt.runtime.closeable import Closeable
from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.io.decoding import MAX_PIXELS
from maskrt.runtime.types import BadFrame, Frame


class VideoSource(Closeable):
    """The first video track, every frame in order, as VIDEO_000000, VIDEO_000001, ...

    timestamp_us is the presentation time since the start of the file's clock. Display rotation is not applied. A
    frame that the decoder finds damaged is a BadFrame, and a file that ends before its stated duration ends in one.
    Video codecs carry no checksums: of 60 random bit flips each that changed pixels, the decoder noticed about half in
    MJPEG and a tenth in H.264. Whoever needs more keeps a sha256 beside the recording.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS) -> None:
        try:
            import av
        except ModuleNotFoundError as error:
            raise MaskrtError("reading a video needs PyAV: pip install 'maskrt[video]'") from error
        self._av: Any = av
        self._path = path
        try:
            self._container: Any = av.open(str(path))
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(
                f"{path} cannot be opened as a video ({_reason(error)}): record or copy it again"
            ) from error
        try:
            self._stream = self._checked_stream(max_pixels)
        except BaseException:
            self._container.close()
            raise

    @property
    def length(self) -> int | None:
        """The number of frames that the container states, if it does."""
        return int(self._stream.frames) or None

    def __iter__(self) -> Iterator[Frame | BadFrame]:
        index, end_s = 0, 0.0
        for item in self._decoded():
            name = f"{self._path.stem}_{index:06d}"
            if isinstance(item, str):
                yield BadFrame(index, name, f"{self._path}: {item}")
            else:
                end_s = max(end_s, self._end_s(item))
                timestamp_us = None if item.time is None else round(item.time * 1e6)
                yield Frame(item.to_ndarray(format="rgb24"), index, name, timestamp_us)
            index += 1
        missing = self._missing(end_s)
        if missing:
            yield BadFrame(index, f"{self._path.stem}_{index:06d}", f"{self._path}: {missing}")

    def _decoded(self) -> Iterator[Any]:
        """Yield decoded frames, or a sentence where a packet cannot be decoded."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (self._av.error.FFmpegError, OSError) as error:
                yield f"the file cannot be read on ({_reason(error)})"
                return
            try:
                frames = packet.decode()
            except self._av.error.FFmpegError as error:
                yield f"damaged frame ({_reason(error)})"
                continue
            for frame in frames:
                yield "the decoder reports a damaged frame" if frame.is_corrupt else frame

    def _checked_stream(self, max_pixels: int) -> Any:
        if not self._container.streams.video:
            raise InputError(f"{self._path} has no video track")
        stream = self._container.streams.video[0]
        if stream.codec_context is None:
            raise InputError(f"{self._path}: its video track cannot be decoded: damaged header or unknown codec")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > max_pixels:
            needed = -(-width * height // 1_000_000)
            raise InputError(
                f"{self._path} is {width} x {height}, over the limit of {max_pixels / 1e6:g} megapixels: "
                f"if you trust it, use --max-megapixels {needed}"
            )
        # Without it a damaged JPEG or H.264 slice comes back as a good-looking frame.
        stream.codec_context.options = {"err_detect": "explode"}
        return stream

    def _interval_s(self) -> float:
        rate = self._stream.average_rate
        return 1 / float(rate) if rate else 0.04

    def _end_s(self, frame: Any) -> float:
        shown_s = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
        return float(frame.time or 0.0) + max(shown_s, self._interval_s())

    def _missing(self, end_s: float) -> str | None:
        """Say what is missing at the end, by the duration that the container states, which a cut does not change."""
        if end_s == 0:
            return "no frame could be decoded"
        stream, container = self._stream, self._container
        slack_s = 0.6 * self._interval_s()  # below one frame, above the rounding of Matroska's milliseconds
        if stream.duration:
            stated_s = float((stream.start_time or 0) * stream.time_base + stream.duration * stream.time_base)
        elif container.duration:
            stated_s = container.duration / 1e6
            # The container's duration is that of its longest track, and sound may outlast the picture.
            slack_s = slack_s if len(container.streams) == 1 else max(slack_s, 1.0)
        else:
            return None
        if end_s >= stated_s - slack_s:
            return None
        return f"ends at {end_s:.2f} s, its header says {stated_s:.2f} s: cut off, copy it again"

    def close(self) -> None:
        """Close the file."""
        self._container.close()


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]
