"""SAM's encoder answers what segment_anything's answers, at every size of image; its sizes and its config."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

import onnx

from maskrt.export.architectures.configs import read_config
from maskrt.export.architectures.deeplab import build_deeplabv3plus
from maskrt.export.architectures.sam import SAM_CONFIGS, SamConfig, build_sam
from maskrt.export.bundles.sams import read_sam, write_encoder
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.errors import CheckpointError, InputError

SamWriter = Callable[[Path, SamConfig], str]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def resnet_config(tiny_config: SamConfig) -> SamConfig:
    return msgspec.structs.replace(tiny_config, encoder="resnet", width_mult=0.125, feature_channels=8)


def relative(found: Any, expected: Any) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("hw", [(128, 128), (96, 128), (128, 72), (1, 128), (128, 1), (127, 128), (128, 33)])
def test_encoder_on_every_shape(encoder_file: Path, small_sam: Any, hw: tuple[int, int], count: int) -> None:
    """Against Sam.preprocess and the image encoder: the padding must be exactly theirs."""
    images = np.random.default_rng(hw).integers(0, 256, (count, *hw, 3), dtype=np.uint8)
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        expected = small_sam.image_encoder(small_sam.preprocess(pixels)).numpy()
    with open_session(encoder_file) as session:
        assert session.inputs == {"image": ("tensor(uint8)", (None, None, None, 3))}
        assert session.outputs == {"image_embeddings": ("tensor(float)", (None, 32, 8, 8))}
        assert relative(session.run({"image": images})["image_embeddings"], expected) < TOLERANCE


def test_nothing_computes_in_uint8(encoder_file: Path) -> None:
    """TensorRT has no operator for it but a cast; what asks for the input's size, maskrt build lets ask the cast."""
    readers = [node.op_type for node in onnx.load(encoder_file).graph.node if "image" in node.input]
    assert set(readers) <= {"Cast", "Shape"}
    assert readers.count("Cast") == 1


def test_no_control_flow_and_no_notes(encoder_file: Path, decoder_file: Path) -> None:
    """Nothing whose shape depends on data, and nothing about the machine that exported."""
    for file in (encoder_file, decoder_file):
        model = onnx.load(file)
        operators = {node.op_type for node in model.graph.node}
        assert not operators & {"NonZero", "If", "Loop", "Scan", "ScatterND", "Unique", "Compress"}
        assert {opset.domain for opset in model.opset_import} == {""}
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
        assert str(Path(__file__).parents[3]).encode() not in file.read_bytes()


@pytest.mark.export
def test_resnet_encoder(tmp_path: Path, resnet_config: SamConfig, write_sam: SamWriter) -> None:
    sam, config = read_sam(write_sam(tmp_path, resnet_config))
    assert config == resnet_config
    parity = write_encoder(sam, config, tmp_path / "encoder.onnx", lambda _: None)
    assert parity.max_rel < TOLERANCE
    images = np.random.default_rng(0).integers(0, 256, (3, 128, 72, 3), dtype=np.uint8)
    with torch.no_grad(), open_session(tmp_path / "encoder.onnx") as session:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        expected = sam.image_encoder(sam.preprocess(pixels)).numpy()
        assert relative(session.run({"image": images})["image_embeddings"], expected) < TOLERANCE


def test_a_resnet_encoder_starts_from_a_segmenter(resnet_config: SamConfig) -> None:
    """The keys and shapes are a DeepLabV3+'s, which the demo's training relies on."""
    segmenter = build_deeplabv3plus("resnet50", 2, decoder_channels=8, width_mult=0.125)
    state = {key: value for key, value in segmenter.state_dict().items() if not key.startswith("segmentation_head.")}
    encoder = build_sam(resnet_config).image_encoder
    missing, unexpected = encoder.load_state_dict(state, strict=False)
    assert not unexpected
    assert {key.partition(".")[0] for key in missing} == {"fine", "coarse", "rows", "columns", "neck"}


@pytest.mark.export
def test_an_embedding_of_another_size_is_refused(tmp_path: Path, resnet_config: SamConfig) -> None:
    sam = build_sam(resnet_config)
    wrong = msgspec.structs.replace(resnet_config, prompt_dim=64)
    with pytest.raises(InputError, match="embedding is"):
        write_encoder(sam, wrong, tmp_path / "encoder.onnx", lambda _: None)


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 0},
        {"image_size": 100},
        {"prompt_dim": 36},
        {"embed_dim": 33},
        {"depth": 0},
        {"mask_in_chans": 6},
        {"decoder_mlp_dim": -1},
        {"encoder": "resnet", "width_mult": 0.25, "feature_channels": 64, "patch_size": 32},
        {"encoder": "resnet", "width_mult": 0, "feature_channels": 64},
        {"encoder": "resnet", "width_mult": 0.25, "feature_channels": 0},
    ],
)
def test_sizes_that_do_not_fit(tiny_config: SamConfig, change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="SAM config: "):
        build_sam(msgspec.structs.replace(tiny_config, **change))


@pytest.mark.parametrize("text", ["", "[]", '{"image_size": "big"}', '{"imagesize": 3}', "\xff", "[" * 100_000])
def test_bad_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"c\.json is "):
        read_config(tmp_path / "c.json", SamConfig)


def test_config_missing_or_wrong(tmp_path: Path, tiny_config: SamConfig, write_sam: SamWriter) -> None:
    spec = write_sam(tmp_path, tiny_config)
    (tmp_path / "sam.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(tiny_config, depth=3)))
    with pytest.raises(CheckpointError, match=r"missing: image_encoder\.blocks\.2"):
        read_sam(spec)
    (tmp_path / "sam.json").unlink()
    with pytest.raises(InputError, match=r"sam\.json is missing"):
        read_sam(spec)


def test_configs_are_upstreams() -> None:
    """Parameter counts of the published checkpoints."""
    for kind, count in {"vit_b": 93_735_472, "vit_l": 312_342_832, "vit_h": 641_090_608}.items():
        with torch.device("meta"):
            sam = build_sam(SAM_CONFIGS[kind])
        assert sum(parameter.numel() for parameter in sam.parameters()) == count
    assert SAM_CONFIGS["vit_b"].low_res_size == 256
    assert SamConfig().embedding_shape == (1, 256, 64, 64)


OURS = "from maskrt.export.architectures.sam import *; build_sam(SamConfig(embed_dim=32, depth=1, heads=2))"
PEERS = (
    "from maskrt.benchmarks.peers.sam_upstream import torchvision_or_stand_ins\n"
    "with torchvision_or_stand_ins():\n"
    "    import segment_anything\n"
    "    from segment_anything import SamAutomaticMaskGenerator, sam_model_registry\n"
    "assert segment_anything.modeling.Sam and segment_anything.__file__\n"
)


@pytest.mark.parametrize("program", [f"{OURS}\n{PEERS}", f"{PEERS}\n{OURS}"])
def test_either_import_first(program: str) -> None:
    """Loading the architecture neither needs nor spoils the real segment_anything."""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
