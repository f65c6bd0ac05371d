"""Accounts for the packets of a track: which pictures can be trusted, and which are missing."""

from typing import Any

# Frames that are only shown to the decoder have packets of their own in these.
_WITH_HIDDEN_FRAMES = ("vp8", "libvpx", "vp9", "libvpx-vp9")
_UNCHANGED_BYTES = 19  # a packet of MPEG-4 that says "as before" is no larger: FFmpeg's own limit for it
_REMEMBERED = 10_000  # packets that wait for their picture; bounds the memory that a file of tiny packets takes
_STEADY_S = 0.0015  # Matroska rounds times to 1 ms


class Account:
    """A record of the packets that went into a decoder and of the pictures that came out.

    A decoder gives pictures later than their packets and in another order, so both are matched by their presentation
    times. Pictures from damage up to the next key frame are predicted from what is damaged.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._packets = self._expected = self._shown = self._failed = 0
        self._waiting, self._tainted = set[int](), set[int]()
        self._reason = ""
        self._dirty = self._interlaced = False
        self._first_key: int | None = None  # presentation times, in the track's own units
        self._clean_from: int | None = None
        self._last_s: float | None = None
        self._end_s = 0.0
        self._steady = self._unsteady = self._gap_count = 0
        self._gap_s = (0.0, 0.0)

    def enter(self, packet: Any, damage: str | None, hit: bool) -> None:
        """Note a packet before it is decoded.

        Args:
            damage: why the file is damaged between the packet before and the end of this one, if it is.
            hit: whether this packet's own bytes are damaged.
        """
        if not packet.size:
            return
        self._packets += 1
        self._note_end(packet)
        if damage is not None:
            self._dirty, self._reason = True, damage
        if packet.is_keyframe and not hit:
            if self._dirty:
                self._clean_from = packet.pts
            self._dirty = False
        leading = self._is_leading(packet)
        if not packet.is_discard and not leading and not self._shows_nothing(packet):
            self._expected += 1
            _remember(self._waiting, packet.pts)
        early = self._clean_from is not None and packet.pts is not None and packet.pts < self._clean_from
        if self._dirty or early:
            _remember(self._tainted, packet.pts)

    def fail(self, reason: str) -> None:
        """Note that the packet which was entered last cannot be decoded."""
        self._failed += 1
        self._dirty, self._reason = True, reason

    def leave(self, frame: Any) -> str | None:
        """Note a picture; return why it cannot be trusted, if so."""
        self._shown += 1
        self._interlaced |= frame.interlaced_frame
        self._note_time(frame)
        self._waiting.discard(frame.pts)
        tainted = frame.pts in self._tainted or (frame.pts is None and self._dirty)
        self._tainted.discard(frame.pts)
        if frame.is_corrupt:
            return "the decoder reports a damaged frame"
        return f"follows damage, with no key frame between ({self._reason})" if tainted else None

    def missing(self, kind: str, container: Any) -> str | None:
        """Say what is missing at the end, if that is certain; `kind` is the demuxer's name."""
        if not self._shown:
            return "no frame could be decoded"
        indexed = len(self._stream.index_entries) if kind == "mov" else 0
        if self._packets < indexed:
            return f"only {self._packets} of its {indexed} frames are there: cut off, copy it again"
        lost = self._expected - self._shown - self._failed
        if lost > 0 and not self._interlaced and self._stream.codec_context.name not in _WITH_HIDDEN_FRAMES:
            place = (
                f", the first at {float(min(self._waiting) * self._stream.time_base):.2f} s" if self._waiting else ""
            )
            return f"{lost} of {self._packets} frames gave no picture{place}: damaged, copy it again"
        stated_s = None if kind == "mov" else self._stated_end_s(container)
        # Below one frame, and above the rounding of Matroska's milliseconds.
        if stated_s is not None and self._end_s < stated_s - 0.6 * self._interval_s():
            return f"ends at {self._end_s:.2f} s, its header says {stated_s:.2f} s: cut off, copy it again"
        return None

    def gaps(self) -> str | None:
        """Say where a track of steady rate pauses; that can be damage, or a recorder that dropped frames."""
        few = 0 < self._gap_count <= max(1, self._steady // 100)
        if not few or self._unsteady or self._steady < 20:
            return None
        more = f" and in {self._gap_count - 1} more places" if self._gap_count > 1 else ""
        return f"there is no frame between {self._gap_s[0]:.2f} s and {self._gap_s[1]:.2f} s{more}: were frames lost?"

    def _is_leading(self, packet: Any) -> bool:
        """Return whether a picture is shown before the first key frame, and is predicted from what is not there."""
        if self._first_key is None and packet.is_keyframe:
            self._first_key = packet.pts
        return self._first_key is not None and packet.pts is not None and packet.pts < self._first_key

    def _shows_nothing(self, packet: Any) -> bool:
        return packet.size <= _UNCHANGED_BYTES and self._stream.codec_context.name in ("mpeg4", "h263", "msmpeg4")

    def _note_end(self, packet: Any) -> None:
        shown_at = packet.dts if packet.pts is None else packet.pts
        if shown_at is not None:
            shown_s = float((packet.duration or 0) * packet.time_base)
            self._end_s = max(self._end_s, float(shown_at * packet.time_base) + max(shown_s, self._interval_s()))

    def _note_time(self, frame: Any) -> None:
        if frame.time is None:
            return
        if self._last_s is not None:
            step_s = frame.time - self._last_s
            if abs(step_s - self._interval_s()) < _STEADY_S:
                self._steady += 1
            elif step_s > 1.5 * self._interval_s():
                self._gap_s = self._gap_s if self._gap_count else (self._last_s, frame.time)
                self._gap_count += 1
            else:
                self._unsteady += 1
        self._last_s = frame.time

    def _interval_s(self) -> float:
        rate = self._stream.base_rate or self._stream.average_rate
        return 1 / float(rate) if rate else 0.04

    def _stated_end_s(self, container: Any) -> float | None:
        """Return where the track ends by its own statement; a container's covers sound, which may last longer."""
        stream = self._stream
        if stream.duration:
            return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        tag = _seconds(stream.metadata.get("DURATION", ""))
        if tag is None and container.duration and len(container.streams) == 1:
            return float(container.duration) / 1e6
        return tag


def _remember(times: set[int], pts: int | None) -> None:
    if pts is not None and len(times) < _REMEMBERED:
        times.add(pts)


def _seconds(tag: str) -> float | None:
    """Read a duration as Matroska's tags hold it, 00:00:12.300000000."""
    try:
        hours, minutes, seconds = tag.strip("\0 ").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None
