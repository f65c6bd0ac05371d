"""Tiny networks, made once: each export costs seconds, most of them the exporter's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prebuilt import prebuilt
from scrambled import scrambled_weights

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

import tiny_sam

from maskrt.export.architectures.deeplab import build_deeplabv3plus
from maskrt.export.architectures.sam import SamConfig
from maskrt.export.bundles.sams import WRITERS

SamWriter = Callable[[Path, SamConfig], str]


@pytest.fixture(scope="session")
def scrambled() -> Callable[..., Any]:
    """scrambled(module) is a network whose every weight counts: no zeros in position embeddings, biases or means."""
    return scrambled_weights


@pytest.fixture(scope="session")
def write_sam() -> SamWriter:
    """write_sam(folder, config) writes a checkpoint with its config beside it; returns KIND:FILE."""
    return tiny_sam.write_checkpoint


@pytest.fixture(scope="session")
def small_sam(tiny_config: SamConfig) -> Any:
    return tiny_sam.build_scrambled(tiny_config)


@pytest.fixture(scope="session")
def sam_spec(tiny_config: SamConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_sam.write_checkpoint(tmp_path_factory.mktemp("sam"), tiny_config)


@pytest.fixture(scope="session")
def sam_graphs() -> dict[str, Path]:
    """Role -> graph of `small_sam`; do not write beside them."""
    folder = prebuilt("sam", tiny_sam.write_graphs, *tiny_sam.SOURCES)
    return {role: folder / f"{role}.onnx" for role in WRITERS}


@pytest.fixture(scope="session")
def encoder_file(sam_graphs: dict[str, Path]) -> Path:
    """The encoder of `small_sam`."""
    return sam_graphs["encoder"]


@pytest.fixture(scope="session")
def decoder_file(sam_graphs: dict[str, Path]) -> Path:
    """The decoder of `small_sam` in one graph."""
    return sam_graphs["decoder"]


@pytest.fixture(scope="session")
def mobilenet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow DeepLabV3+ with two classes."""
    torch.manual_seed(0)
    model = scrambled_weights(build_deeplabv3plus("mobilenet_v2", 2, decoder_channels=32, width_mult=0.25))
    file = tmp_path_factory.mktemp("segmenter") / "mobilenet.pth"
    torch.save(model.state_dict(), file)
    return file
