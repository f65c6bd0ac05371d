"""The cache of what PyTorch exports for the tests: whole or absent, built once, and never changed."""

import subprocess
import sys
from pathlib import Path

import prebuilt as module
import pytest
from prebuilt import cache_folder, key_of, prebuilt

SOURCES = ("scrambled.py",)
# Says that it builds, and builds when it is told to.
ASK = """
import sys
sys.path.insert(0, sys.argv[1])
from prebuilt import prebuilt

def build(folder):
    print("builds", flush=True)
    sys.stdin.readline()
    (folder / "model.onnx").write_bytes(b"a model")

print(prebuilt("model", build, "scrambled.py"), flush=True)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("MASKRT_TEST_CACHE", str(tmp_path / "cache"))
    return cache_folder()


def build(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "model.onnx").write_bytes(b"a model")


def never(folder: Path) -> None:
    pytest.fail("it is there already")


def test_built_once(cache: Path) -> None:
    folder = prebuilt("model", build, *SOURCES)
    assert folder.is_relative_to(cache)
    assert (folder / "inner" / "model.onnx").read_bytes() == b"a model"
    assert prebuilt("model", never, *SOURCES) == folder
    assert prebuilt("another", build, *SOURCES) != folder


def test_two_processes_at_once_build_once() -> None:
    command = [sys.executable, "-c", ASK, str(Path(module.__file__).parent)]
    asking = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in asking:  # both, before either is waited for: nobody knows which of them builds
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[0].splitlines() for process in asking]
    assert sorted(lines[0] for lines in said)[-1] == "builds"
    assert sorted(len(lines) for lines in said) == [1, 2]  # only one of them has built
    assert len({lines[-1] for lines in said}) == 1


def test_a_build_that_fails_leaves_nothing(cache: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "half").write_bytes(b"half")
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        prebuilt("model", fails, *SOURCES)
    assert [path.name for path in cache.iterdir()] == ["model.lock"]
    assert (prebuilt("model", build, *SOURCES) / "inner").is_dir()


@pytest.mark.parametrize("change", ["altered", "added", "removed"])
def test_a_changed_file_is_noticed_in_the_next_run(change: str) -> None:
    file = prebuilt("model", build, *SOURCES) / "inner" / "model.onnx"
    if change == "removed":
        file.unlink()
    else:
        (file if change == "altered" else file.with_name("engine")).write_bytes(b"another")
    module._unchanged.cache_clear()
    with pytest.raises(AssertionError, match="a test has changed"):
        prebuilt("model", never, *SOURCES)


def test_a_key_is_that_of_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    own, exporter = key_of(SOURCES), module.exporter()
    assert key_of(("tiny_refiner.py",)) != own
    assert key_of((*SOURCES, "benchmarks/cases/refine_models.py")) != own
    monkeypatch.setattr(module, "version", lambda name: "0")
    module.exporter.cache_clear()
    assert module.exporter() != exporter
    assert key_of(SOURCES) != own
    monkeypatch.undo()
    module.exporter.cache_clear()
    assert key_of(SOURCES) == own
