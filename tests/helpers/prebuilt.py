"""Bundles and graphs that PyTorch exports for the tests: each is written once into a cache folder and then only read.

The folder is `.test-cache` in the checkout, or MASKRT_TEST_CACHE. A name there ends in a sha256 over everything that
decides the files, so a changed source leads to a new folder. Remove the whole cache at any time.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path

from maskrt.runtime.files import sha256_of

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("torch", "onnx", "onnxscript", "onnx-ir")
FILES, SUMS = "files", "sha256.json"  # in a folder of the cache


def cache_folder() -> Path:
    """Return the folder of the cache."""
    return Path(os.environ.get("MASKRT_TEST_CACHE") or ROOT / ".test-cache").resolve()


def prebuilt(name: str, build: Callable[[Path], object], *sources: str) -> Path:
    """Return a folder that `build` has filled, now or in an earlier run; the caller must not change it.

    Any number of processes may ask at once: one builds and the others wait for it. A folder that is in the cache is
    whole, because it is renamed into place only when `build` has returned.

    Args:
        build: fills an empty folder. The files may not hold the folder's own path, as it is renamed.
        sources: files under tests/helpers or the checkout that decide what `build` writes, beside the exporter.

    Raises:
        AssertionError: a test has changed a file of the cache.
    """
    key = key_of(sources)
    home = cache_folder()
    home.mkdir(parents=True, exist_ok=True)
    place = home / f"{name}-{key[:20]}"
    with _locked(home / f"{name}.lock"):
        if not place.exists():
            _build(build, place)
    return _unchanged(place)


def key_of(sources: tuple[str, ...]) -> str:
    """Return the sha256 over the exporter, the kernel whose weights it lays out, `sources` and the libraries."""
    digest = hashlib.sha256(exporter().encode())
    for source in sources:
        found = next(path for path in (ROOT / "tests/helpers" / source, ROOT / source) if path.is_file())
        digest.update(f"{source} {sha256_of(found)}\n".encode())
    return digest.hexdigest()


@cache
def exporter() -> str:
    """Return the sha256 over the sources that write a bundle, and the versions of the libraries that they use."""
    folders = ("export", "kernels/pixel_decoder", "runtime/bundle")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    parts = [path.relative_to(ROOT) for path in files if not path.is_relative_to(ROOT / "export/demo")]
    lines = [f"{part} {sha256_of(ROOT / part)}" for part in parts] + [f"{name} {version(name)}" for name in LIBRARIES]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _build(build: Callable[[Path], object], place: Path) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        (temporary / FILES).mkdir()
        build(temporary / FILES)
        (temporary / SUMS).write_text(json.dumps(_sums(temporary / FILES), indent=1))
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@cache
def _unchanged(place: Path) -> Path:
    """Return the files of a folder in the cache, once a process compared with their sums."""
    files = place / FILES
    assert _sums(files) == json.loads((place / SUMS).read_text()), f"a test has changed {place}: remove that folder"
    return files


def _sums(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock that no other process holds; it goes with the process, however that ends."""
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
