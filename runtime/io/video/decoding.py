"""Decodes a track, and puts a reason in the place of each picture that cannot be trusted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from maskrt.runtime.io.video.account import Account
from maskrt.runtime.io.video.container import VideoFile, reason_of

_BLOCK = 256  # decoders keep edges around a picture: MPEG-4 refuses one of 64 x 48 with 128 here, not with 200


@dataclass(frozen=True)
class Bad:
    """A frame without a picture that can be trusted."""

    reason: str


def other_size(frame_wh: tuple[int, int], track_wh: tuple[int, int]) -> str:
    """Return the reason why a frame whose size is not its track's is bad."""
    frame, track = (f"{width} x {height}" for width, height in (frame_wh, track_wh))
    return f"the frame is {frame}, the track {track}: split it where it changes"


class Decoder:
    """An iterator over the frames of a track as PyAV gives them, with Bad for what is damaged or missing."""

    def __init__(self, video: VideoFile, stream: Any) -> None:
        from av.stream import Discard

        context = stream.codec_context
        # Without explode a damaged JPEG or slice comes back as a good-looking frame. max_pixels: a size that grows
        # midway is refused before its memory is taken.
        context.options = {
            "err_detect": "crccheck+bitstream+buffer+explode",
            "max_pixels": str((context.width + _BLOCK) * (context.height + _BLOCK)),
        }
        for other in video.container.streams:
            if other is not stream:
                other.discard = Discard.all
        self._video, self._stream = video, stream
        self._account = Account(stream)
        self._damages = sorted(video.damages, key=lambda damage: -damage.start)
        self._told = set[str]()
        self._size_wh = context.width, context.height
        self._items = self._run()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._items)

    def gaps(self) -> str | None:
        """Say where the frames so far pause though their rate is steady; see Account.gaps."""
        return self._account.gaps()

    def _run(self) -> Iterator[Any]:
        errors = self._video.av.error.FFmpegError, OSError
        packets = self._video.container.demux(self._stream)
        stopped = False
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except errors as error:
                yield Bad(f"the file cannot be read on ({reason_of(error)})")
                stopped = True
                break
            self._account.enter(packet, *self._damage_up_to(packet))
            try:
                frames = packet.decode()
            except errors as error:
                self._account.fail(reason_of(error))
                yield Bad(self._why(error))
                continue
            for frame in frames:
                reason = self._account.leave(frame)
                yield frame if reason is None else Bad(reason)
        yield from self._at_the_end(stopped)

    def _why(self, error: Exception) -> str:
        context = self._stream.codec_context
        size_wh = context.width, context.height
        if size_wh == self._size_wh or 0 in size_wh:
            return f"damaged frame ({reason_of(error)})"
        return other_size(size_wh, self._size_wh)

    def _damage_up_to(self, packet: Any) -> tuple[str | None, bool]:
        """Return why the file is damaged since the last packet, and whether the packet's own bytes are."""
        reason, hit = None, False
        if not packet.size or packet.pos is None:
            return reason, hit
        end = packet.pos + packet.size
        while self._damages and self._damages[-1].start < end:
            damage = self._damages[-1]
            reason, hit = damage.reason, hit or packet.pos < damage.end
            self._told.add(reason)
            if damage.end > end:
                break  # the next packet may lie in it too
            self._damages.pop()
        return reason, hit

    def _at_the_end(self, stopped: bool) -> Iterator[Bad]:
        """Yield one Bad for all that no packet has told of; where the file was cut off, that comes first."""
        untold = [damage.reason for damage in self._damages if damage.reason not in self._told]
        missing = self._account.missing(self._video.kind, self._video.container)
        if missing and not untold and not stopped:
            untold.append(missing)
        if untold:
            yield Bad(untold[0])
