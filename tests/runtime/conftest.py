"""Two bundles whose decoders differ in their weights, and what a decoder is fed with."""

from pathlib import Path

import numpy as np
import pytest
from refittable import Feeds
from tiny_bundle import EMBEDDING, LOW_RES, write_tiny_bundle


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
