"""Videos as sources: what is read, and what is refused on opening."""

import os
import shutil
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from drawn_video import decoded, pictures, reasons, write_video

from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.io.sources import open_source
from maskrt.runtime.types import Frame


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("v.mkv", "mjpeg", "yuvj420p"),
        ("v.avi", "mjpeg", "yuvj420p"),
        ("v.mp4", "mpeg4", "yuv420p"),
        ("v.MOV", "libx264", "yuv420p"),
        ("v.webm", "libvpx-vp9", "yuv420p"),
    ],
)
def test_video(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    frames = [item for item in decoded(write_video(tmp_path / name, 20, codec, pix_fmt)) if isinstance(item, Frame)]
    assert [frame.timestamp_us for frame in frames] == [index * 40_000 for index in range(20)]
    assert all(frame.rgb.shape == (48, 64, 3) and frame.rgb.dtype == np.uint8 for frame in frames)
    assert frames[5].rgb[:, 12:16].mean() > 190 > 100 > frames[5].rgb[:, 40:].mean()


@pytest.mark.parametrize(
    "name",
    ["cam:1.mp4", "http:x.mp4", "concat:a|b.mp4", "pipe:0.mp4", "data:,x.mp4", "img%03d.mp4", "-.mp4", "a?b.mp4"],
)
def test_a_name_like_an_address_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    expected = pictures(write_video(Path("v.mp4"), 3, "mpeg4", "yuv420p"))
    shutil.copy("v.mp4", name)
    with open_source(name) as source:
        assert [frame.rgb.tobytes() for frame in source if isinstance(frame, Frame)] == expected


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.mp4", b"ffconcat version 1.0\nfile 'v.mp4'\n", "is an FFmpeg concat script: a video is MP4 or QuickTime,"),
        ("a.mkv", b"#EXTM3U\n#EXTINF:1,\nv.mp4\n", "is an HLS playlist: a video is"),
        ("a.mp4", b"<?xml version='1.0'?><MPD/>", "is an XML or HTML text: a video is"),
        ("a.mov", b"v=0\no=- 0 0 IN IP4 127.0.0.1\n", "is an SDP description"),
        ("a.mkv", b"GIF89a" + bytes(20), "is a GIF picture"),
        ("a.avi", b"RIFF\x24\x00\x00\x00WAVEfmt ", "is a RIFF file without video"),
        ("a.mp4", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "is a HEIF picture, not a video"),
        ("a.mp4", b"testsrc=size=64x48\n", "begins with b'testsrc=size=64x', which is none that maskrt knows"),
        ("a.webm", b"", "is an empty file: copy it again"),
    ],
)
def test_another_format_is_refused_by_name(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    write_video(tmp_path / "v.mp4", 3, "mpeg4", "yuv420p")
    (tmp_path / name).write_bytes(data)
    (reason,) = reasons(tmp_path / name)
    assert reason.startswith(said)


def test_the_contents_say_the_format_not_the_suffix(tmp_path: Path) -> None:
    write_video(tmp_path / "v.avi", 3)
    shutil.copy(tmp_path / "v.avi", tmp_path / "w.mp4")
    assert pictures(tmp_path / "w.mp4") == pictures(tmp_path / "v.avi")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.mp4")
    pytest.importorskip("av")
    with pytest.raises(InputError, match="is not a plain file: give a file, not a folder, a pipe or a device"):
        open_source(str(tmp_path / "v.mp4"))


def test_no_video_inside(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "v.mp4").write_bytes(b"\x00\x00\x00\x14ftypisom" + bytes(8) + b"\x00\x00\x00\x08mdat")
    with pytest.raises(InputError, match=r"cannot be opened as a video .*: record or copy it again"):
        open_source(str(tmp_path / "v.mp4"))


def test_only_sound(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.int16), format="s16", layout="stereo")
        frame.sample_rate = 48000
        container.mux(sound.encode(frame))
    with pytest.raises(InputError, match="has no video track: give a video"):
        open_source(str(tmp_path / "v.mkv"))


def test_a_title_that_is_not_utf8(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        container.metadata["title"] = "caf~"
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    data = (tmp_path / "v.mkv").read_bytes()
    (tmp_path / "v.mkv").write_bytes(data.replace(b"caf~", b"caf\xe9"))
    assert len(pictures(tmp_path / "v.mkv")) == 1


def test_a_large_video_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mkv")
    with pytest.raises(
        InputError, match=r"is 64 x 48, over the limit of 0\.003 megapixels: if you trust it, use --max-"
    ):
        open_source(str(tmp_path / "v.mkv"), max_pixels=3000)
    assert len(decoded(tmp_path / "v.mkv", max_pixels=64 * 48)) == 20


@pytest.mark.parametrize("place", ["all frames", "one frame"])
def test_a_frame_that_is_larger_than_the_header_says(tmp_path: Path, place: str) -> None:
    data = bytearray(write_video(tmp_path / "v.avi").read_bytes())
    at = data.index(b"\xff\xc0", 0 if place == "all frames" else len(data) // 2)
    while at >= 0:
        struct.pack_into(">HH", data, at + 5, 15000, 15000)  # 225 megapixels
        at = data.find(b"\xff\xc0", at + 4) if place == "all frames" else -1
    (tmp_path / "v.avi").write_bytes(data)
    script = (
        "import sys; from maskrt.runtime.io.sources import open_source\n"
        "from maskrt.runtime.types import BadFrame\n"
        "from maskrt.runtime.errors import InputError\n"
        "try:\n    print(sum(isinstance(item, BadFrame) for item in open_source(sys.argv[1])))\n"
        "except InputError as error:\n    print(error)\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "v.avi"], capture_output=True, text=True, check=True
    )
    said, peak_kb = done.stdout.splitlines()
    assert done.stderr == ""
    assert said == "1" if place == "one frame" else "cannot be decoded" in said or said == "20"
    assert int(peak_kb) < 200_000  # a frame of that size takes 337 MB, and 675 MB more as RGB


def test_a_size_that_changes_midway(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for index, size in enumerate([(64, 48), (64, 48), (96, 80), (64, 48)]):
            codec = av.CodecContext.create("mjpeg", "w")
            codec.width, codec.height, codec.pix_fmt, codec.time_base = *size, "yuvj420p", Fraction(1, 25)
            picture = av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), format="rgb24")
            for packet in codec.encode(picture.reformat(format="yuvj420p")) + codec.encode(None):
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1, 25)
                container.mux(packet)
    assert reasons(tmp_path / "v.mkv") == ["the frame is 96 x 80, the track 64 x 48: split it where it changes"]


def test_a_track_that_grows_midway(tmp_path: Path) -> None:
    """H.264 with new parameters, as WebRTC records it: the decoder refuses the size before it takes the memory."""
    av, sizes = pytest.importorskip("av"), ((160, 96), (1920, 1088))
    packets = []
    for size, count in zip(sizes, (120, 2), strict=True):
        codec = av.CodecContext.create("libx264", "w")
        codec.width, codec.height, codec.pix_fmt, codec.time_base = *size, "yuv420p", Fraction(1, 25)
        codec.options = {"tune": "zerolatency", "x264-params": "repeat-headers=1:annexb=1"}
        for _ in range(count):
            packets += codec.encode(av.VideoFrame(*size, "yuv420p"))
    (tmp_path / "v.h264").write_bytes(b"".join(map(bytes, packets)))
    with av.open(str(tmp_path / "v.h264")) as raw, av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream_from_template(raw.streams.video[0])
        for number, packet in enumerate(packet for packet in raw.demux() if packet.size):
            packet.stream, packet.time_base, packet.duration = stream, Fraction(1, 1000), 100
            packet.pts = packet.dts = 100 * number
            container.mux(packet)
    told = "the frame is 1920 x 1088, the track 160 x 96: split it where it changes"
    assert reasons(tmp_path / "v.mkv") == [told, told]


@pytest.mark.parametrize(("table", "offset"), [(b"stts", 8), (b"stsz", 8)])
def test_a_header_that_states_billions_of_frames(tmp_path: Path, table: bytes, offset: int) -> None:
    data = bytearray(write_video(tmp_path / "v.mp4", 5, "mpeg4", "yuv420p").read_bytes())
    struct.pack_into(">I", data, data.index(table) + 4 + offset, 0x7FFFFFFF)
    (tmp_path / "v.mp4").write_bytes(data)
    (reason,) = reasons(tmp_path / "v.mp4")
    assert reason == f"its header states {0x7FFFFFFF} frames in {len(data)} bytes: damaged, copy it again"


def test_video_without_pyav_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MaskrtError, match=r"pip install 'maskrt\[video\]'"):
        open_source(str(tmp_path / "v.mp4"))
