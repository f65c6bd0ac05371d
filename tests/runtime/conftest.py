"""Bundles, files and providers that several files of tests use, and what a decoder is fed with."""

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from refittable import Feeds
from tiny_bundle import EMBEDDING, LOW_RES, write_tiny_bundle

from maskrt.runtime.engines.onnxruntime_options import DEVICE_MEMORY, DeviceMemory


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle to write to."""
    return shutil.copytree(tiny_bundle, tmp_path / "ward")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "old")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """The same networks; the decoder has learnt."""
    return write_tiny_bundle(tmp_path / "new", radii=(4.0, 7.0, 13.0))


@pytest.fixture
def feeds(rng: np.random.Generator) -> Feeds:
    return {
        "image_embeddings": rng.standard_normal((1, 3, EMBEDDING, EMBEDDING), np.float32),
        "point_coords": rng.uniform(0, 64, (5, 2, 2)).astype(np.float32),
        "point_labels": np.ones((5, 2), np.float32),
        "mask_input": np.zeros((1, 1, LOW_RES, LOW_RES), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }


@pytest.fixture(params=[16, 256])
def on_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider cpu keeps tensors as a GPU's does: the same code, on the device type that is here."""
    monkeypatch.setitem(DEVICE_MEMORY, "cpu", DeviceMemory("cpu", request.param))


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Memory goes by references alone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def prompts(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Inputs of the tiny decoder."""
    return {
        "image_embeddings": rng.standard_normal((1, 3, 4, 4), np.float32),
        "point_coords": rng.uniform(0, 64, (5, 2, 2)).astype(np.float32),
        "point_labels": np.tile(np.array([1, -1], np.float32), (5, 1)),
        "mask_input": np.zeros((1, 1, 32, 32), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in a bundle, and the user's cache beside that."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "bundle" / "encoder.onnx"
    path.parent.mkdir()
    path.write_bytes(b"\x08\x08")  # a version of the format, and no graph
    return path
