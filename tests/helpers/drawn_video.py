"""Draws small videos with PyAV: a bar that moves over noise, with or without sound."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from maskrt.runtime.errors import InputError
from maskrt.runtime.io.decoding import MAX_PIXELS
from maskrt.runtime.io.sources import open_source
from maskrt.runtime.types import BadFrame, Frame


def drawn(index: int, size_wh: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    """Return picture `index`, uint8 RGB [H, W, 3]: a bright bar at x = 2 * index, modulo the width, over noise."""
    width, height = size_wh
    rgb = np.random.default_rng(index).integers(40, 80, (height, width, 3), dtype=np.uint8)
    at = index * 2 % width
    rgb[:, at : at + 8] = 220
    return rgb


def write_video(
    path: Path,
    frames: int = 20,
    codec: str = "mjpeg",
    pix_fmt: str = "yuvj420p",
    *,
    size_wh: tuple[int, int] = (64, 48),
    rate: int | Fraction = 25,
    times: Sequence[int] | None = None,
    options: Mapping[str, str] | None = None,
    muxer: Mapping[str, str] | None = None,
    sound: str | None = None,
    sound_s: float | None = None,
    sample_aspect_ratio: Fraction | None = None,
) -> Path:
    """Write a video and return its path.

    Args:
        times: presentation time of each frame, in frames of `rate`; 0, 1, 2, ... if left out.
        options, muxer: options of the encoder and of the container.
        sound: codec of a sound track; sound_s: its length, that of the pictures if left out.
    """
    av: Any = pytest.importorskip("av")
    with av.open(str(path), "w", options=dict(muxer or {})) as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.width, stream.height = size_wh
        stream.pix_fmt = pix_fmt
        if sample_aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
        audio = container.add_stream(sound, rate=48000) if sound else None
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(drawn(index, size_wh), format="rgb24")
            frame.pts = index if times is None else times[index]
            frame.time_base = 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        if audio is not None:
            _mux_sound(av, container, audio, float(frames / Fraction(rate)) if sound_s is None else sound_s)
        container.mux(stream.encode())
    return path


def decoded(path: Path, max_pixels: int = MAX_PIXELS, track: str | None = None) -> list[Frame | BadFrame]:
    """Return what a video gives as a source; indices and names are checked."""
    with open_source(str(path), max_pixels, track) as source:
        items = list(source)
    assert [item.index for item in items] == list(range(len(items)))
    assert [item.name for item in items] == [f"{path.stem}_{index:06d}" for index in range(len(items))]
    return items


def reasons(path: Path) -> list[str]:
    """Return why frames of a video are bad, or why it is refused; without the path that each starts with."""
    try:
        items = decoded(path)
    except InputError as error:
        return [str(error).removeprefix(str(path)).lstrip(": ")]
    return [item.reason.removeprefix(f"{path}: ") for item in items if isinstance(item, BadFrame)]


def pictures(path: Path) -> list[bytes]:
    """Return the pixels of the good frames; none of a refused video."""
    try:
        return [item.rgb.tobytes() for item in decoded(path) if isinstance(item, Frame)]
    except InputError:
        return []


def _mux_sound(av: Any, container: Any, audio: Any, length_s: float) -> None:
    layout, form = "stereo", audio.codec_context.format.name if audio.codec_context.format else "s16"
    for at in range(0, int(length_s * 48000), 960):
        planes, values = (2, 960) if form.endswith("p") else (1, 1920)
        dtype = np.float32 if "flt" in form else np.int16
        sound = av.AudioFrame.from_ndarray(np.zeros((planes, values), dtype), format=form, layout=layout)
        sound.sample_rate, sound.pts, sound.time_base = 48000, at, Fraction(1, 48000)
        container.mux(audio.encode(sound))
    container.mux(audio.encode())
