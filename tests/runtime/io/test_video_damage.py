"""Videos that are whole, cut off and damaged: nothing is called damaged that is not, and damage is reported."""

import random
import struct
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from drawn_video import decoded, pictures, reasons, write_video

from maskrt.runtime.types import BadFrame, Frame

EIGHT = {"x264-params": "keyint=8:min-keyint=8:scenecut=0:bframes=0"}  # a key frame every 8 frames
TELEPHONE = [index * 33 + index * 7 % 5 for index in range(20)]  # milliseconds
DROPPED = [index + 4 * (index > 5) + 9 * (index > 11) for index in range(20)]
WHOLE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "h264.mp4": ("libx264", "yuv420p", {}),
    "h264_sound.mp4": ("libx264", "yuv420p", {"options": {"bf": "2"}, "sound": "aac", "sound_s": 2.5}),
    "h264_short_sound.mkv": ("libx264", "yuv420p", {"sound": "aac", "sound_s": 0.3}),
    "h264_long_sound.mkv": ("libx264", "yuv420p", {"options": {"bf": "2"}, "sound": "aac", "sound_s": 2.5}),
    "h264_pcm.mov": ("libx264", "yuv420p", {"sound": "pcm_s16le", "sound_s": 3.0}),
    "h264_long_sound.avi": ("mjpeg", "yuvj420p", {"sound": "pcm_s16le", "sound_s": 3.0}),
    "fragments.mp4": ("libx264", "yuv420p", {"muxer": {"movflags": "frag_keyframe+empty_moov"}, "options": {"g": "5"}}),
    "fast.mp4": ("libx264", "yuv420p", {"muxer": {"movflags": "faststart"}}),
    "slices.mp4": ("libx264", "yuv420p", {"options": {"x264-params": "slices=3:ref=4:bframes=3:b-pyramid=normal"}}),
    "open_gop.mkv": ("libx264", "yuv420p", {"options": {"x264-params": "open-gop=1:keyint=6:bframes=2"}}),
    "refresh.mkv": ("libx264", "yuv420p", {"options": {"x264-params": "intra-refresh=1:keyint=5"}}),
    "mpeg4.mp4": ("mpeg4", "yuv420p", {"options": {"bf": "2"}}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"options": {"bf": "2"}}),
    "mpeg4.mkv": ("mpeg4", "yuv420p", {}),
    "mjpeg.mp4": ("mjpeg", "yuvj420p", {}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}),
    "mjpeg.mkv": ("mjpeg", "yuvj420p", {}),
    "vp8.webm": ("libvpx", "yuv420p", {"options": {"auto-alt-ref": "1", "lag-in-frames": "10"}}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"sound": "libopus"}),
    "live.webm": ("libvpx-vp9", "yuv420p", {"muxer": {"live": "1"}}),
    "ffv1.mkv": ("ffv1", "yuv420p", {}),
    "ffv1.avi": ("ffv1", "yuv420p", {}),
    "hevc.mp4": ("libx265", "yuv420p", {"options": {"x265-params": "log-level=none:open-gop=1:keyint=6"}}),
    "prores.mov": ("prores", "yuv422p10le", {}),
    "ntsc.mkv": ("libx264", "yuv420p", {"rate": Fraction(30000, 1001)}),
    "ntsc.mp4": ("libx264", "yuv420p", {"rate": Fraction(30000, 1001)}),
    "telephone.mp4": ("libx264", "yuv420p", {"rate": 1000, "times": TELEPHONE}),
    "telephone.mkv": ("libx264", "yuv420p", {"rate": 1000, "times": TELEPHONE}),
    "dropped.mkv": ("libx264", "yuv420p", {"times": DROPPED}),
    "dropped.avi": ("mjpeg", "yuvj420p", {"times": DROPPED}),
    "late.mp4": ("libx264", "yuv420p", {"times": list(range(50, 70))}),
    "late.mkv": ("mjpeg", "yuvj420p", {"times": list(range(50, 70))}),
    "one.mp4": ("libx264", "yuv420p", {"frames": 1}),
    "one.mkv": ("mjpeg", "yuvj420p", {"frames": 1}),
    "one.avi": ("mjpeg", "yuvj420p", {"frames": 1}),
}  # fmt: skip


def write_whole(folder: Path, name: str) -> Path:
    codec, pix_fmt, options = WHOLE[name]
    return write_video(folder / name, **{"frames": 20, "codec": codec, "pix_fmt": pix_fmt, **options})


@pytest.mark.parametrize("name", list(WHOLE))
def test_whole_files_give_every_frame_and_no_alarm(tmp_path: Path, name: str) -> None:
    path = write_whole(tmp_path, name)
    assert reasons(path) == []
    assert len(pictures(path)) == WHOLE[name][2].get("frames", 20)
    assert pictures(path) == pictures(path)  # whatever threads do


def remuxed(path: Path, target: Path, keep: Any) -> Path:
    """Copy the packets of a video's first track for which keep(number, packet) holds."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as source, av.open(str(target), "w") as written:
        stream = written.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.size and keep(number, packet):
                packet.stream = stream
                written.mux(packet)
    return target


def test_a_clip_that_starts_at_an_open_gop_is_whole(tmp_path: Path) -> None:
    """Pictures before the first key frame in the order of display cannot be shown, and no player shows them."""
    path = write_whole(tmp_path, "open_gop.mkv")
    seen = []

    def from_second_key_frame(number: int, packet: Any) -> bool:
        seen.append(packet.is_keyframe)
        return sum(seen) >= 2

    assert reasons(remuxed(path, tmp_path / "clip.mkv", from_second_key_frame)) == []


def test_a_start_without_a_key_frame_is_reported(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", 20, "libx264", "yuv420p", options=EIGHT)
    found = reasons(remuxed(path, tmp_path / "clip.mkv", lambda number, packet: number >= 4))
    assert len(found) == 1
    assert found[0].startswith("4 of 16 frames gave no picture, the first at 0.16 s: damaged")


def test_a_pause_in_a_steady_track_is_named(tmp_path: Path) -> None:
    from maskrt.runtime.io.sources import open_source

    path = write_video(tmp_path / "v.mkv", 60)
    gap = remuxed(path, tmp_path / "gap.mkv", lambda number, packet: not 30 <= number < 40)
    with open_source(str(gap)) as source:
        assert all(isinstance(item, Frame) for item in source)
        assert source.notes == (f"{gap}: there is no frame between 1.16 s and 1.60 s: were frames lost?",)


CUT = [
    "h264.mp4",
    "fast.mp4",
    "fragments.mp4",
    "h264_long_sound.mkv",
    "mpeg4.avi",
    "mjpeg.avi",
    "vp9.webm",
    "mjpeg.mkv",
]


@pytest.mark.parametrize("name", CUT)
def test_a_cut_file_is_reported(tmp_path: Path, name: str) -> None:
    whole = write_whole(tmp_path, name).read_bytes()
    cut = tmp_path / f"cut_{name}"
    for percent in range(5, 100, 5):
        cut.write_bytes(whole[: len(whole) * percent // 100])
        assert reasons(cut), percent


def test_a_header_cut_at_any_byte_of_its_tables_is_reported(tmp_path: Path) -> None:
    whole = write_whole(tmp_path, "fast.mp4").read_bytes()
    start, cut = whole.index(b"stbl"), tmp_path / "cut.mp4"
    for end in range(start, start + 400):
        cut.write_bytes(whole[:end])
        assert reasons(cut), end


@pytest.mark.parametrize("name", CUT)
def test_a_file_without_a_block_in_its_middle_is_reported(tmp_path: Path, name: str) -> None:
    whole = write_whole(tmp_path, name).read_bytes()
    holed, rng = tmp_path / f"holed_{name}", random.Random(1)
    for _ in range(20):
        start = rng.randrange(len(whole) * 3 // 10, len(whole) * 6 // 10)
        holed.write_bytes(whole[:start] + whole[start + rng.randrange(1, len(whole) // 5) :])
        assert reasons(holed), start


@pytest.mark.parametrize("name", ["h264_long_sound.mkv", "mjpeg.mkv", "mpeg4.mkv", "ffv1.mkv"])
def test_a_checksum_of_matroska_finds_every_flipped_bit(tmp_path: Path, name: str) -> None:
    path = write_whole(tmp_path, name)
    whole, expected, rng = path.read_bytes(), pictures(path), random.Random(1)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        # Good frames are those of the whole file, with a report where any is missing.
        found = pictures(path)
        assert found == expected or (reasons(path) and not set(found) - set(expected))


def test_a_corrupt_jpeg_in_the_middle_is_one_bad_frame(tmp_path: Path) -> None:
    data = bytearray(write_video(tmp_path / "v.avi").read_bytes())
    start = data.index(b"\xff\xda", len(data) // 2)  # a scan's header, in the middle of the file
    data[start + 20 : start + 60] = b"\xff\x00" * 20
    (tmp_path / "v.avi").write_bytes(data)
    items = decoded(tmp_path / "v.avi")
    bad = [item for item in items if isinstance(item, BadFrame)]
    assert len(items) == 20
    assert len(bad) == 1
    assert "damaged frame" in bad[0].reason


def test_frames_after_damage_are_bad_up_to_the_next_key_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 20, "libx264", "yuv420p", options=EIGHT)
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data, expected = bytearray(path.read_bytes()), pictures(path)
    start, size = places[10]
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    items = decoded(path)
    assert [item.index for item in items if isinstance(item, BadFrame)] == list(range(10, 16))
    assert "follows damage, with no key frame between" in reasons(path)[1]
    assert pictures(path) == expected[:10] + expected[16:]


def test_an_edit_list_that_hides_the_start_is_no_loss(tmp_path: Path) -> None:
    data = bytearray(write_video(tmp_path / "v.mp4", 20, "libx264", "yuv420p", options=EIGHT).read_bytes())
    at = data.index(b"elst") + 12
    duration, start = struct.unpack_from(">ii", data, at)
    assert start == 0
    struct.pack_into(">ii", data, at, duration // 2, 5120)  # in units of 1/12800 s: from frame 10 on
    (tmp_path / "v.mp4").write_bytes(data)
    assert reasons(tmp_path / "v.mp4") == []
    assert len(pictures(tmp_path / "v.mp4")) == 10


def nested(start: bytes, count: int, wrap: Callable[[bytes], bytes]) -> bytes:
    body = b""
    for _ in range(count):
        body = wrap(body)
    return start + body


def test_boxes_and_lists_nested_without_end_are_refused(tmp_path: Path) -> None:
    boxes = nested(b"\0\0\0\x10ftypisom\0\0\0\0", 5000, lambda body: struct.pack(">I4s", len(body) + 8, b"moov") + body)
    (tmp_path / "v.mp4").write_bytes(boxes)
    assert "cannot be opened as a video" in reasons(tmp_path / "v.mp4")[0]
    lists = nested(b"", 5000, lambda body: b"LIST" + struct.pack("<I", len(body) + 4) + b"rec " + body)
    (tmp_path / "v.avi").write_bytes(b"RIFF" + struct.pack("<I", len(lists) + 4) + b"AVI " + lists)
    assert len(reasons(tmp_path / "v.avi")) == 1


def fuzz(tmp_path: Path, rounds: int, seed: int) -> Counter[str]:
    """Mutate videos; return how often damage was reported, silent, or without effect. Nothing else may happen."""
    rng, counts = random.Random(seed), Counter[str]()
    names = ["h264.mp4", "fragments.mp4", "mpeg4.avi", "mjpeg.mkv", "vp9.webm", "live.webm", "h264_pcm.mov"]
    whole = {name: write_whole(tmp_path, name).read_bytes() for name in names}
    expected = {name: pictures(tmp_path / name) for name in names}
    for _ in range(rounds):
        name = rng.choice(names)
        data = bytearray(whole[name])
        for _ in range(rng.choice([1, 3, 20])):
            # Half of the places are in the first or last kilobyte, where the headers are.
            place = rng.randrange(len(data)) if rng.random() < 0.5 else rng.choice([1, -1]) * rng.randrange(1, 1000)
            data[place % len(data)] = rng.choice([0, 0xFF, rng.randrange(256)])
        path = tmp_path / f"fuzz{Path(name).suffix}"
        path.write_bytes(data)
        counts["reported" if reasons(path) else "same" if pictures(path) == expected[name] else "silent"] += 1
    return counts


def test_mutated_videos_are_reported_or_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    counts = fuzz(tmp_path, 150, 1)
    assert counts["reported"] > 75
    output = capfd.readouterr()
    assert "]" not in output.err.replace("[info]", "")  # FFmpeg's own lines begin with "[h264 @ 0x...]"
