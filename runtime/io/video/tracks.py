"""Chooses the track of a video that holds the pictures."""

from pathlib import Path
from typing import Any

from maskrt.runtime.errors import InputError

_LISTED = 10
_COVER = 0x400 | 0x800  # FFmpeg's dispositions attached_pic and timed_thumbnails
# What cameras, telephones and recording tools write: every decoder is a risk.
CODECS = frozenset(
    """h264 hevc av1 libdav1d vp8 libvpx vp9 libvpx-vp9 mpeg4 msmpeg4v2 msmpeg4 h263 mpeg1video mpeg2video mjpeg png
    jpeg2000 ffv1 huffyuv ffvhuff utvideo rawvideo v210 prores dnxhd cfhd dvvideo qtrle theora wmv1 wmv2""".split()  # noqa: SIM905
)


def choose_track(path: Path, container: Any, track: str | None) -> Any:
    """Return the stream of PyAV that `track` names, or the only one with pictures.

    Pictures are what can be seen: a cover, and depth or infrared of more than 8 bits, are none. Where a recording of an
    Azure Kinect marks its colour track, that is the one.

    Args:
        track: a number, counted from 0 over all tracks of the file as ffprobe does, or a title.

    Raises:
        InputError: there is no track with pictures, several, or `track` names none or another kind.
    """
    if track is not None:
        stream = _named(path, container, track)
        unusable = _unusable(stream)
        if unusable:
            raise InputError(f"{path}: track {_described(stream)} {unusable}")
        return stream
    tracks = [stream for stream in container.streams.video if not int(stream.disposition) & _COVER]
    if not tracks:
        cover = ", only a cover picture" if container.streams.video else ""
        raise InputError(f"{path} has no video track{cover}: give a video")
    usable = [stream for stream in tracks if _unusable(stream) is None]
    if not usable:
        raise InputError(f"{path}: track {_described(tracks[0])} {_unusable(tracks[0])}")
    colour = [stream for stream in usable if "K4A_COLOR_TRACK" in stream.metadata]
    if len(colour) == 1:
        return colour[0]
    if len(usable) > 1:
        raise InputError(f"{path} has {len(tracks)} video tracks: choose one with --track: {_listed(tracks)}")
    return usable[0]


def is_grey_measurement(name: str) -> bool:
    """Return whether a pixel format of FFmpeg is grey of more than 8 bits: depth, infrared, X-ray."""
    return name.startswith(("gray", "ya")) and name not in ("gray", "ya8")


def _named(path: Path, container: Any, track: str) -> Any:
    streams = list(container.streams)
    found = [stream for stream in streams if track in (str(stream.index), _title(stream))]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{path}: --track {track} names {len(found)} tracks: give a number of {_listed(found)}")
    raise InputError(f"{path} has no track {track}: it has {_listed(streams)}")


def _unusable(stream: Any) -> str | None:
    """Say why a track has no pictures for a network, if so."""
    if stream.type != "video":
        return f"is of type {stream.type}: choose a video track"
    context = stream.codec_context
    if context is None:
        return "cannot be decoded: damaged header or unknown codec"
    if context.name not in CODECS:
        return "is of a codec that maskrt does not read: convert it to H.264, MJPEG or FFV1"
    form = context.pix_fmt
    if form is None:
        return "cannot be decoded: its first frames are damaged, or larger than --max-megapixels allows"
    if is_grey_measurement(form):
        return f"holds {form}, a measurement such as depth or infrared and not a colour picture"
    if "K4A_DEPTH_TRACK" in stream.metadata or "K4A_IR_TRACK" in stream.metadata:
        return "is marked as depth or infrared and not a colour picture"
    if form.startswith(("bayer", "xyz")) or "f16" in form or "f32" in form:
        return f"holds {form}, raw values and not a colour picture: convert it first"
    return None


def _title(stream: Any) -> str:
    metadata = stream.metadata
    return str(metadata.get("title") or metadata.get("handler_name") or "")


def _described(stream: Any) -> str:
    context, title = stream.codec_context, _title(stream)
    codec = "unknown codec" if context is None else context.name
    size = f" {context.width} x {context.height}" if context is not None and stream.type == "video" else ""
    return f"{stream.index} ({f'{title!r}, ' if title else ''}{stream.type} {codec}{size})"


def _listed(streams: list[Any]) -> str:
    more = f" and {len(streams) - _LISTED} more" if len(streams) > _LISTED else ""
    return ", ".join(_described(stream) for stream in streams[:_LISTED]) + more
