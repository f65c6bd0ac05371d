"""Reading of plain files."""

import os
from pathlib import Path

import pytest

from maskrt.runtime.errors import InputError
from maskrt.runtime.files import open_plain, read_plain


def test_a_plain_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_plain(tmp_path / "a", 5) == b"12345"
    with open_plain(tmp_path / "a") as file:
        assert file.read() == b"12345"


def test_a_larger_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123456")
    with pytest.raises(InputError, match="larger than 5 bytes"):
        read_plain(tmp_path / "a", 5)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "missing", "below a file", "zero byte"])
def test_what_is_no_plain_file_is_refused_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "below a file":
        path.write_bytes(b"1")
        path = path / "b"
    elif kind == "zero byte":
        path = tmp_path / "a\0b"
    with pytest.raises(InputError):
        read_plain(path, 5)
