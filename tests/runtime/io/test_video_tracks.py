"""Which track of a video is taken."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from drawn_video import decoded, drawn, reasons, write_video

from maskrt.runtime.errors import InputError
from maskrt.runtime.io.sources import open_source
from maskrt.runtime.types import Frame

Track = tuple[str, str, str, dict[str, str]]  # codec, pixel format, title, tags
COLOR: Track = ("mjpeg", "yuvj420p", "COLOR", {})
DEPTH: Track = ("ffv1", "gray16le", "DEPTH", {})
SIDE: Track = ("mjpeg", "yuvj420p", "SIDE", {})


def write_tracks(path: Path, tracks: Sequence[Track], frames: int = 3) -> Path:
    """Write a Matroska file; the pictures of track N begin with `drawn(10 * N)`."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        streams = []
        for codec, pix_fmt, title, tags in tracks:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
            stream.metadata.update({"title": title, **tags})
            streams.append(stream)
        for index in range(frames):
            for number, stream in enumerate(streams):
                frame = av.VideoFrame.from_ndarray(drawn(10 * number + index), format="rgb24")
                frame.pts = index
                container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        for stream in streams:
            container.mux(stream.encode())
    return path


def taken(path: Path, track: str | None = None) -> int:
    """Return the number of the track whose pictures come out."""
    first = decoded(path, track=track)[0]
    assert isinstance(first, Frame)
    differences = [np.abs(first.rgb.astype(int) - drawn(10 * number)).mean() for number in range(4)]
    return int(np.argmin(differences))


def test_the_only_colour_track_is_taken_wherever_it_stands(tmp_path: Path) -> None:
    assert taken(write_tracks(tmp_path / "a.mkv", [COLOR, DEPTH])) == 0
    assert taken(write_tracks(tmp_path / "b.mkv", [DEPTH, ("ffv1", "gray16le", "IR", {}), COLOR])) == 2


def test_several_tracks_are_refused_and_listed(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "v.mkv", [COLOR, SIDE, DEPTH])
    said = (
        "has 3 video tracks: choose one with --track: 0 ('COLOR', video mjpeg 64 x 48), "
        "1 ('SIDE', video mjpeg 64 x 48), 2 ('DEPTH', video ffv1 64 x 48)"
    )
    assert reasons(path) == [said]
    assert [taken(path, track) for track in ("0", "1", "COLOR", "SIDE")] == [0, 1, 0, 1]


def test_a_long_list_is_shortened(tmp_path: Path) -> None:
    (reason,) = reasons(write_tracks(tmp_path / "v.mkv", [COLOR] * 30, 1))
    assert reason.startswith("has 30 video tracks")
    assert reason.endswith("9 ('COLOR', video mjpeg 64 x 48) and 20 more")


@pytest.mark.parametrize(
    ("track", "said"),
    [
        ("3", "has no track 3: it has 0 ('COLOR', video mjpeg 64 x 48), 1 ('DEPTH', video ffv1 64 x 48), 2 ("),
        ("color", "has no track color: it has 0"),
        ("", "has no track : it has 0"),
        ("DEPTH", "track 1 ('DEPTH', video ffv1 64 x 48) holds gray16le, a measurement such as depth or infrared"),
        ("2", "track 2 ('DEPTH', video ffv1 64 x 48) holds gray16le"),
    ],
)
def test_a_track_that_is_not_there_or_no_picture(tmp_path: Path, track: str, said: str) -> None:
    path = write_tracks(tmp_path / "v.mkv", [COLOR, DEPTH, DEPTH])
    with pytest.raises(InputError) as refused:
        open_source(str(path), track=track)
    assert said in str(refused.value) or (track == "DEPTH" and "names 2 tracks" in str(refused.value))


def test_only_measurements(tmp_path: Path) -> None:
    (reason,) = reasons(write_tracks(tmp_path / "v.mkv", [DEPTH]))
    assert reason == (
        "track 0 ('DEPTH', video ffv1 64 x 48) holds gray16le, "
        "a measurement such as depth or infrared and not a colour picture"
    )


def test_the_marks_of_an_azure_kinect_decide(tmp_path: Path) -> None:
    infrared: Track = ("mjpeg", "yuvj420p", "IR", {"K4A_IR_TRACK": "2"})
    assert taken(write_tracks(tmp_path / "a.mkv", [infrared, COLOR])) == 1
    colour: Track = ("mjpeg", "yuvj420p", "COLOR", {"K4A_COLOR_TRACK": "1"})
    assert taken(write_tracks(tmp_path / "b.mkv", [SIDE, colour])) == 1
    assert "is marked as depth or infrared" in reasons(write_tracks(tmp_path / "c.mkv", [infrared]))[0]


def test_a_cover_is_no_track(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = write_tracks(tmp_path / "v.mkv", [COLOR, SIDE])
    with av.open(str(path)) as source, av.open(str(tmp_path / "w.mp4"), "w") as target:
        streams = [target.add_stream_from_template(stream) for stream in source.streams.video]
        streams[1].disposition = 0x400
        for packet in source.demux(source.streams.video):
            if packet.size and (packet.stream.index == 0 or packet.pts == 0):
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    assert taken(tmp_path / "w.mp4") == 0


def test_an_unusual_codec_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", 3, "msvideo1", "rgb555le")
    (reason,) = reasons(tmp_path / "v.avi")
    assert "is of a codec that maskrt does not read: convert it to H.264, MJPEG or FFV1" in reason


@pytest.mark.skipif("MASKRT_TEST_DATA" not in os.environ, reason="needs MASKRT_TEST_DATA")
def test_a_real_azure_kinect_recording() -> None:
    path = Path(os.environ["MASKRT_TEST_DATA"]) / "kinect" / "recording.mkv"
    if not path.is_file():
        pytest.skip(f"no {path}")
    pytest.importorskip("av")
    (frame,) = decoded(path)
    assert isinstance(frame, Frame)
    assert frame.rgb.shape == (720, 1280, 3)
    with pytest.raises(InputError, match=r"track 1 .*holds gray16be"):
        open_source(str(path), track="DEPTH")
