"""AnyLabeling's own steps with the files give upstream's masks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

from maskrt.export.architectures.sam import SamConfig
from maskrt.export.bundles.anylabeling import INPUTS, OUTPUTS, export_anylabeling, write_official_decoder
from maskrt.export.graph_tools.fitness import findings
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.errors import InputError

pytestmark = pytest.mark.export

TOLERANCE = 1e-4  # resizing twice to sizes known at run time: ONNX Runtime's coordinates are float32


@pytest.fixture(scope="module")
def decoder_file(small_sam: Any, tiny_config: SamConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder") / "decoder.onnx"
    write_official_decoder(small_sam, tiny_config, path, lambda _: None)
    return path


@pytest.fixture(scope="module")
def official(small_sam: Any) -> Any:
    """Upstream's module for this export, on our network."""
    from maskrt.benchmarks.peers.sam_upstream import torchvision_or_stand_ins

    with torchvision_or_stand_ins():
        from segment_anything.utils.onnx import SamOnnxModel
    return SamOnnxModel(small_sam, return_single_mask=True)


@pytest.mark.parametrize("points", [1, 2, 3, 6])
@pytest.mark.parametrize("has_mask", [0.0, 1.0])
@pytest.mark.parametrize("hw", [(684, 1024), (200, 333), (128, 128), (1, 9)])
def test_decoder_equals_the_official_module(
    decoder_file: Path, official: Any, points: int, has_mask: float, hw: tuple[int, int]
) -> None:
    random = torch.Generator().manual_seed(points)
    values = (
        torch.randn(1, 32, 8, 8, generator=random),
        torch.rand(1, points, 2, generator=random) * 128,
        torch.randint(-1, 4, (1, points), generator=random).float(),
        torch.randn(1, 1, 32, 32, generator=random),
        torch.tensor([has_mask]),
        torch.tensor(hw, dtype=torch.float32),
    )
    with open_session(decoder_file) as session:
        found = session.run({name: value.numpy() for name, value in zip(INPUTS, values, strict=True)})
    for name, expected in zip(OUTPUTS, official(*values), strict=True):
        assert found[name].shape == tuple(expected.shape)
        scale = float(expected.abs().max())
        assert np.abs(found[name] - expected.numpy()).max() <= TOLERANCE * scale


def test_it_is_known_not_to_fit_tensorrt(decoder_file: Path) -> None:
    """orig_im_size decides how large its masks are; that is what other programs expect of it."""
    assert any("follows from the values of" in line and "orig_im_size" in line for line in findings(decoder_file))


def test_files(tmp_path: Path, tiny_config: SamConfig, write_sam: Callable[..., str]) -> None:
    """A SAM of 1024 pixels, run with the inputs that AnyLabeling's sam_onnx.py makes."""
    config = msgspec.structs.replace(tiny_config, image_size=1024, window_size=14, depth=1, global_attn_indexes=())
    paths = export_anylabeling(write_sam(tmp_path, config), tmp_path / "model", name="my_sam")
    assert [path.name for path in paths] == ["my_sam.encoder.onnx", "my_sam.decoder.onnx", "config.yaml"]
    settings = dict(line.split(": ", 1) for line in paths[2].read_text().splitlines())
    assert settings["type"] == "segment_anything"
    assert (tmp_path / "model" / settings["encoder_model_path"]).is_file()
    assert (tmp_path / "model" / settings["decoder_model_path"]).is_file()
    with open_session(paths[0]) as encoder:
        assert encoder.inputs == {"input_image": ("tensor(float)", (None, None, 3))}
        embedding = encoder.run({"input_image": np.full((684, 1024, 3), 90, np.float32)})["image_embeddings"]
    with open_session(paths[1]) as decoder:
        feeds = {
            "image_embeddings": embedding,
            "point_coords": np.array([[[10, 20], [300, 400], [0, 0]]], np.float32),
            "point_labels": np.array([[2, 3, -1]], np.float32),
            "mask_input": np.zeros((1, 1, 256, 256), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array((684, 1024), np.float32),
        }
        masks, _, _ = decoder.run(feeds).values()
    assert masks.shape == (1, 1, 684, 1024)
    with pytest.raises(InputError, match="exists"):
        export_anylabeling(f"custom:{tmp_path / 'sam.pth'}", tmp_path / "model", name="my_sam")


def test_refusals(tmp_path: Path, sam_spec: str) -> None:
    with pytest.raises(InputError, match=r"name '\.\./x'"):
        export_anylabeling(sam_spec, tmp_path / "model", name="../x")
    with pytest.raises(InputError, match="AnyLabeling feeds every SAM 1024 pixels; this one takes 128"):
        export_anylabeling(sam_spec, tmp_path / "model", name="x")
    assert not list(tmp_path.iterdir())
