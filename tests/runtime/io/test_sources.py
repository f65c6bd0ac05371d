"""Images, folders and globs as sources."""

import os
from pathlib import Path

import numpy as np
import pytest
from drawn_video import write_video
from PIL import Image

from maskrt.runtime.errors import InputError
from maskrt.runtime.io.sources import natural_key, open_source
from maskrt.runtime.types import BadFrame, Frame


def write_images(folder: Path, *names: str) -> Path:
    """Small grey images; the value is the position in `names`."""
    folder.mkdir(parents=True, exist_ok=True)
    for value, name in enumerate(names):
        Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(folder / name)
    return folder


def names_of(spec: str | Path) -> list[str]:
    """The frames' names, all of them good."""
    with open_source(str(spec)) as source:
        frames = list(source)
    assert all(isinstance(frame, Frame) for frame in frames)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert source.length == len(frames)
    return [frame.name for frame in frames]


def test_one_image(tmp_path: Path) -> None:
    assert names_of(write_images(tmp_path, "bed.png") / "bed.png") == ["bed"]


def test_folder_in_natural_order_without_other_files(tmp_path: Path) -> None:
    write_images(tmp_path, "f_10.png", "f_2.JPG", "F_1.bmp", ".hidden.png", "x.PNG")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    write_images(tmp_path / "deeper", "inner.png")
    assert names_of(tmp_path) == ["F_1", "f_2", "f_10", "x"]


def test_glob(tmp_path: Path) -> None:
    write_images(tmp_path / "a", "1.png", "skip.png")
    write_images(tmp_path / "b", "2.png")
    assert names_of(tmp_path / "*" / "[0-9].png") == ["1", "2"]
    assert names_of(tmp_path / "**" / "*.png") == ["1", "2", "skip"]


def test_a_name_with_glob_characters_is_a_file(tmp_path: Path) -> None:
    assert names_of(write_images(tmp_path, "bed[1].png") / "bed[1].png") == ["bed[1]"]


def test_symlinked_images_are_read(tmp_path: Path) -> None:
    write_images(tmp_path / "real", "a.png")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "b.png").symlink_to(tmp_path / "real" / "a.png")
    assert names_of(tmp_path / "links") == ["b"]


def test_natural_key() -> None:
    names = ["a10b", "a2b", "A1", "10", "9", "", "²"]
    assert sorted(names, key=natural_key) == ["", "9", "10", "A1", "a2b", "a10b", "²"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no image or video; looked for \*\.png, .*subfolders are not searched"):
        open_source(str(tmp_path))
    with pytest.raises(InputError, match=r"pattern .* holds no image or video"):
        open_source(str(tmp_path / "*.png"))
    with pytest.raises(InputError, match="no such file or folder; a source is"):
        open_source(str(tmp_path / "none.png"))


@pytest.mark.parametrize("names", [("a.png", "a.jpg"), ("a.png", "A.bmp")])
def test_equal_stems_are_refused_up_front(tmp_path: Path, names: tuple[str, str]) -> None:
    write_images(tmp_path, *names)
    with pytest.raises(InputError, match=r"would both write outputs named .*: rename one of them"):
        open_source(str(tmp_path))


def test_equal_stems_in_two_folders_of_a_glob_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "1", "a.png")
    write_images(tmp_path / "2", "a.png")
    with pytest.raises(InputError, match="would both write"):
        open_source(str(tmp_path / "*" / "*.png"))


def test_a_name_that_is_not_utf8_fails_alone(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png", "b.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    with open_source(str(tmp_path)) as source:
        good, bad = source
    assert isinstance(good, Frame)
    assert isinstance(bad, BadFrame)
    assert bad.name == "\\udcff"
    assert "not valid UTF-8: rename" in bad.reason


def test_files_that_are_passed_over_are_named(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png", ".hidden.png")
    Image.new("RGB", (6, 4)).save(tmp_path / "b.jpg", "JPEG")
    (tmp_path / "c.gif").write_bytes(b"GIF89a")
    (tmp_path / "d.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "e.png").symlink_to(tmp_path / "a.png")
    os.link(tmp_path / "b.jpg", tmp_path / "f.jpg")
    os.mkfifo(tmp_path / "g.png")
    (tmp_path / "folder").mkdir()
    with open_source(str(tmp_path)) as source:
        assert [frame.name for frame in source] == ["a", "b"]
    told = [note.removeprefix("passed over: ") for note in source.notes]
    assert [note.partition(": ")[0] for note in told] == ["c.gif", "d.png", "e.png", "f.jpg", "g.png"]
    assert "its ending is none" in told[0]
    assert "a link to a file that is not there" in told[1]
    assert "the same file as a.png" in told[2]
    assert "the same file as b.jpg" in told[3]
    assert "not a plain file" in told[4]


def test_pictures_and_videos_of_a_folder_are_taken_in_order(tmp_path: Path) -> None:
    write_images(tmp_path, "ward_2.png", "ward_10.png")
    write_video(tmp_path / "ward_9.mkv")
    (tmp_path / "ward_11.mp4").write_bytes(b"no video")
    with open_source(str(tmp_path)) as source:
        frames = list(source)
    assert source.length is None
    assert [frame.index for frame in frames] == list(range(len(frames)))
    names = [frame.name for frame in frames]
    assert (names[0], names[1], names[-2], names[-1]) == ("ward_2", "ward_9_000000", "ward_10", "ward_11")
    assert isinstance(frames[-1], BadFrame)


def test_a_picture_named_like_a_frame_of_a_video_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, "a_000001.png")
    write_video(tmp_path / "a.mkv", 2)
    with pytest.raises(InputError, match=r"and a frame of .* would both write"):
        open_source(str(tmp_path))


def test_bad_images_do_not_stop_the_others(tmp_path: Path) -> None:
    write_images(tmp_path, "a.png", "c.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    with open_source(str(tmp_path)) as source:
        frames = list(source)
    assert [(type(frame), frame.index, frame.name) for frame in frames] == [
        (Frame, 0, "a"),
        (BadFrame, 1, "b"),
        (Frame, 2, "c"),
    ]
    assert isinstance(frames[1], BadFrame)
    assert "not an image" in frames[1].reason


def test_the_cap_reaches_the_reader(tmp_path: Path) -> None:
    with open_source(str(write_images(tmp_path, "a.png")), max_pixels=23) as source:
        (frame,) = source
    assert isinstance(frame, BadFrame)
    assert "--max-megapixels" in frame.reason


def test_a_track_is_for_videos(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--track 1 chooses a track of a video, and .* is none: leave --track out"):
        open_source(str(write_images(tmp_path, "a.png")), track="1")
