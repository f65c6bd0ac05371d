"""Pictures have names that other pictures do not change."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrt.runtime.annotate.pictures import Picture, find_pictures, open_picture
from maskrt.runtime.errors import InputError


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(path)


def names(spec: str) -> list[str]:
    return [picture.name for picture in find_pictures(spec)]


def test_folder_file_and_glob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "w/f_10.png", tmp_path / "w/f_2.jpg", tmp_path / "w/b/f_1.png", tmp_path / "w/a/f_1.png")
    assert names(str(tmp_path / "w")) == ["f_2.jpg", "f_10.png"]
    assert names(str(tmp_path / "w/f_10.png")) == ["f_10.png"]
    assert names(str(tmp_path / "w/**/*.png")) == ["a/f_1.png", "b/f_1.png", "f_10.png"]
    # Named from the part before the wildcard, not from what was found.
    assert names(str(tmp_path / "w/a*/*.png")) == ["a/f_1.png"]
    monkeypatch.chdir(tmp_path / "w")
    assert names("*.png") == ["f_10.png"]
    assert names("*/f_1.png") == ["a/f_1.png", "b/f_1.png"]


def test_odd_names(tmp_path: Path) -> None:
    odd = ["-rf.png", "a [1] & <b>'\".png", "новая пеленка.png", "x\ny.png"]
    write(*(tmp_path / name for name in odd))
    assert sorted(names(str(tmp_path))) == sorted(odd)
    assert names(str(tmp_path / odd[1])) == [odd[1]]  # is a file, and no pattern


def test_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"film")
    (tmp_path / "empty").mkdir()
    for spec, said in (("film.mp4", "is a video"), ("empty", "holds no image"), ("nowhere", "no such file")):
        with pytest.raises(InputError, match=said):
            find_pictures(str(tmp_path / spec))
    write(tmp_path / "good.png")
    (tmp_path / "good.png").rename(tmp_path / "bad\udcff.png")
    with pytest.raises(InputError, match="not valid UTF-8"):
        find_pictures(str(tmp_path))


def test_opened(tmp_path: Path, rng: np.random.Generator) -> None:
    rgb = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    opened = open_picture(Picture(tmp_path / "a.png", "a.png"), 100)
    np.testing.assert_array_equal(opened.rgb, rgb)
    assert opened.size_hw == (5, 7)
    with pytest.raises(InputError, match="--max-megapixels"):
        open_picture(Picture(tmp_path / "a.png", "a.png"), 34)
