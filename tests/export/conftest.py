"""Tiny networks, made once: each export costs seconds, most of them the exporter's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scrambled import scrambled_weights

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

from maskrt.export.architectures.deeplab import build_deeplabv3plus
from maskrt.export.architectures.sam import SamConfig, build_sam
from maskrt.export.bundles.sams import write_decoder, write_encoder

SamWriter = Callable[[Path, SamConfig], str]


def _write_sam(folder: Path, config: SamConfig) -> str:
    torch.manual_seed(0)
    torch.save(scrambled_weights(build_sam(config)).state_dict(), folder / "sam.pth")
    (folder / "sam.json").write_bytes(msgspec.json.encode(config))
    return f"custom:{folder / 'sam.pth'}"


@pytest.fixture(scope="session")
def scrambled() -> Callable[..., Any]:
    """scrambled(module) is a network whose every weight counts: no zeros in position embeddings, biases or means."""
    return scrambled_weights


@pytest.fixture(scope="session")
def write_sam() -> SamWriter:
    """write_sam(folder, config) writes a checkpoint with its config beside it; returns KIND:FILE."""
    return _write_sam


@pytest.fixture(scope="session")
def small_sam(tiny_config: SamConfig) -> Any:
    torch.manual_seed(0)
    return scrambled_weights(build_sam(tiny_config))


@pytest.fixture(scope="session")
def sam_spec(tiny_config: SamConfig, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _write_sam(tmp_path_factory.mktemp("sam"), tiny_config)


@pytest.fixture(scope="session")
def encoder_file(small_sam: Any, tiny_config: SamConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder of `small_sam`."""
    path = tmp_path_factory.mktemp("encoder") / "encoder.onnx"
    write_encoder(small_sam, tiny_config, path, lambda _: None)
    return path


@pytest.fixture(scope="session")
def decoder_file(small_sam: Any, tiny_config: SamConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decoder of `small_sam` in one graph."""
    path = tmp_path_factory.mktemp("decoder") / "decoder.onnx"
    write_decoder(small_sam, tiny_config, path, lambda _: None)
    return path


@pytest.fixture(scope="session")
def mobilenet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow DeepLabV3+ with two classes."""
    torch.manual_seed(0)
    model = scrambled_weights(build_deeplabv3plus("mobilenet_v2", 2, decoder_channels=32, width_mult=0.25))
    file = tmp_path_factory.mktemp("segmenter") / "mobilenet.pth"
    torch.save(model.state_dict(), file)
    return file
