"""Where engines are kept that are run again without a look at where they came from."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from maskrt.runtime.engines.tensorrt import folders as engine_places
from maskrt.runtime.engines.tensorrt.folders import unsigned_cache
from maskrt.runtime.errors import ProviderUnavailable


def test_engines_are_kept_by_content(model: Path, tmp_path: Path) -> None:
    first = unsigned_cache(model, "ort-tensorrt")
    assert first == unsigned_cache(model, "ort-tensorrt")
    assert first != unsigned_cache(model, "another")
    root = tmp_path / "cache/maskrt/engines"
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (first, first.parent, root)} == {0o700}
    found = {first}
    for file, content in ((model, b"another"), (model.with_name("encoder.onnx.data"), b"weights"), (model, b"third")):
        file.write_bytes(content)
        found.add(unsigned_cache(model, "ort-tensorrt"))
    assert len(found) == 4
    assert {folder.parent for folder in found} == {first.parent}


def test_engines_that_came_along_with_a_bundle(model: Path) -> None:
    """ONNX Runtime runs whatever it finds in the folder that it is given."""
    key = unsigned_cache(model, "ort-tensorrt").name
    for folder in (model.parent / "engines/ort-tensorrt" / key, model.parent / "engines/another" / key):
        folder.mkdir(parents=True, mode=0o700)
    for engine in ("ort-tensorrt", "another"):
        assert not unsigned_cache(model, engine).is_relative_to(model.parent)


def _open(folder: Path) -> None:
    folder.chmod(0o775)


def _link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))


def _file(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("in the way")


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "others may write": (_open, "others than its owner can change it"),
    "a link": (_link, "a link or a file where a folder should be"),
    "a file": (_file, "File exists"),
}


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("how", SPOILT)
def test_engines_that_others_could_have_put_there(model: Path, how: str, level: int) -> None:
    spoil, reason = SPOILT[how]
    folder = (found := unsigned_cache(model, "ort-tensorrt"), *found.parents)[level]
    spoil(folder)
    with pytest.raises(ProviderUnavailable, match=rf"this user alone can write to \({folder}.*: {reason}\): remove"):
        unsigned_cache(model, "ort-tensorrt")


def test_engines_of_another_user(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = unsigned_cache(model, "ort-tensorrt")
    assert found.stat().st_uid in engine_places.trusted_owners()
    monkeypatch.setattr(engine_places, "trusted_owners", lambda: (found.stat().st_uid + 1,))
    with pytest.raises(ProviderUnavailable, match="others than its owner can change it"):
        unsigned_cache(model, "ort-tensorrt")
