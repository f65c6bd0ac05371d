"""The decoder in one graph answers what segment_anything's predictor answers: points, boxes and masks as prompts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

import tiny_sam
from prebuilt import prebuilt

from maskrt.export.architectures.sam import SamConfig, build_sam
from maskrt.export.bundles.sams import write_decoder
from maskrt.export.graphs.decoder import DecoderGraph, PlainDecoderGraph
from maskrt.runtime.bundle.specs import SamSpec
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.sam.mask_decoder import WholeDecoder

MASKS = 1e-5  # of the largest logit
# At the official size upstream's own float32 is as far as 1.3e-6 from its float64, and so is ours.
PRED_IOU = {"small": 1e-6, "official": 3e-6}
EXACT = 1e-12  # in float64


@dataclass(frozen=True)
class Sides:
    """The exported graph as the runtime runs it, and upstream's predictor on the same embedding and weights."""

    config: SamConfig
    decoder: WholeDecoder
    predictor: Any
    pred_iou: float  # tolerance


@pytest.fixture(scope="module", params=["small", "official"])
def sides(
    request: Any,
    small_sam: Any,
    tiny_config: SamConfig,
    decoder_file: Path,
) -> Sides:
    from maskrt.benchmarks.peers.sam_upstream import torchvision_or_stand_ins

    with torchvision_or_stand_ins():
        from segment_anything.predictor import SamPredictor
    sam, config, path = small_sam, tiny_config, decoder_file
    if request.param == "official":
        sam, config = tiny_sam.build_scrambled(tiny_sam.OFFICIAL, 3), tiny_sam.OFFICIAL
        path = prebuilt("official-decoder", tiny_sam.write_official_size, *tiny_sam.SOURCES) / "decoder.onnx"
    predictor = SamPredictor(sam)
    # What set_torch_image leaves, without an encoder's run; masks at the picture's size are not looked at.
    predictor.features = torch.randn(config.embedding_shape, generator=torch.Generator().manual_seed(4))
    predictor.input_size = predictor.original_size = (8, 8)
    predictor.is_image_set = True
    spec = SamSpec(config.image_size, (config.low_res_size, config.low_res_size))
    return Sides(config, WholeDecoder(open_session(path), spec), predictor, PRED_IOU[request.param])


def check(
    sides: Sides, batch: int, points: Any = None, labels: Any = None, boxes: Any = None, masks: Any = None
) -> None:
    """Same prompts to both; the caller of ours turns boxes and what pads into points."""
    _, expected_iou, expected = sides.predictor.predict_torch(points, labels, boxes, masks, multimask_output=True)
    coords, kinds = torch.zeros(batch, 0, 2), torch.zeros(batch, 0)
    if points is not None:
        coords, kinds = points, labels
    if boxes is not None:
        corners = torch.tensor([[2.0, 3.0]]).expand(batch, -1)
        coords, kinds = torch.cat([coords, boxes.reshape(batch, 2, 2)], 1), torch.cat([kinds, corners], 1)
    elif points is not None:
        coords = torch.cat([coords, torch.zeros(batch, 1, 2)], 1)
        kinds = torch.cat([kinds, torch.full((batch, 1), -1.0)], 1)
    mask_input = None if masks is None else masks.numpy()
    image = sides.decoder.prepare(sides.predictor.features.numpy())
    prompted = sides.decoder.prompt(image, coords.numpy(), kinds.numpy(), mask_input=mask_input)
    _, low_res = sides.decoder.masks(image, prompted, np.ones((batch, 3), np.bool_))
    assert np.abs(prompted.pred_iou - expected_iou.numpy()).max() < sides.pred_iou
    assert np.abs(low_res.reshape(expected.shape) - expected.numpy()).max() < MASKS * expected.abs().max()


def prompts(config: SamConfig, batch: int, points: int) -> tuple[Any, Any, Any]:
    """Points, labels and boxes."""
    random = torch.Generator().manual_seed(batch * 10 + points)
    coords = torch.rand(batch, points, 2, generator=random) * config.image_size
    labels = torch.randint(0, 2, (batch, points), generator=random).float()
    return coords, labels, torch.rand(batch, 4, generator=random) * config.image_size


def logits(config: SamConfig, count: int) -> Any:
    """As the decoder's: a few units about zero."""
    side = config.low_res_size
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(count)) * 5


@pytest.mark.parametrize(("batch", "points"), [(1, 1), (1, 4), (2, 2), (7, 1), (5, 3)])
@pytest.mark.parametrize("boxed", [False, True])
def test_without_a_mask(sides: Sides, batch: int, points: int, boxed: bool) -> None:
    coords, labels, boxes = prompts(sides.config, batch, points)
    check(sides, batch, coords, labels, boxes if boxed else None)


@pytest.mark.parametrize(("batch", "masks"), [(1, 1), (2, 1), (2, 2), (5, 1), (5, 5)])
@pytest.mark.parametrize("boxed", [False, True])
def test_points_and_masks(sides: Sides, batch: int, masks: int, boxed: bool) -> None:
    coords, labels, boxes = prompts(sides.config, batch, 2)
    check(sides, batch, coords, labels, boxes if boxed else None, logits(sides.config, masks))


@pytest.mark.parametrize(("batch", "masks"), [(1, 1), (3, 1), (3, 3)])
def test_boxes_and_masks(sides: Sides, batch: int, masks: int) -> None:
    check(sides, batch, boxes=prompts(sides.config, batch, 1)[2], masks=logits(sides.config, masks))


@pytest.mark.parametrize("batch", [1, 4])
def test_masks_alone(sides: Sides, batch: int) -> None:
    check(sides, batch, masks=logits(sides.config, batch))


def test_many_prompts(sides: Sides) -> None:
    """A batch of segment_anything's generator; at the official size it would only take longer."""
    batch = 64 if sides.config.image_size < 1024 else 8
    coords, labels, _ = prompts(sides.config, batch, 1)
    check(sides, batch, coords, labels)
    check(sides, batch, coords, labels, masks=logits(sides.config, batch))


def test_a_mask_of_zeros_is_a_mask(sides: Sides) -> None:
    """Upstream's embedding of it is not that of none."""
    coords, labels, _ = prompts(sides.config, 2, 1)
    image = sides.decoder.prepare(sides.predictor.features.numpy())
    zeros = np.zeros((1, 1, sides.config.low_res_size, sides.config.low_res_size), np.float32)
    found = [
        sides.decoder.prompt(image, coords.numpy(), labels.numpy(), mask_input=mask).pred_iou for mask in (None, zeros)
    ]
    assert np.abs(found[0] - found[1]).max() > 100 * sides.pred_iou
    check(sides, 2, coords, labels, masks=torch.from_numpy(zeros))


def test_padding_inside_a_prompt(sides: Sides) -> None:
    """Prompts of different length can share a batch: upstream takes -1 among the given labels too."""
    coords, _, boxes = prompts(sides.config, 2, 3)
    check(sides, 2, coords, torch.tensor([[1.0, 0.0, 1.0], [1.0, -1.0, -1.0]]), boxes)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("batch", "masks"), [(1, 1), (4, 1), (4, 2), (4, 4)])
def test_modules(tiny_config: SamConfig, scrambled: Any, depth: int, batch: int, masks: int) -> None:
    """Without ONNX and roundings, at every depth: projecting shared images once changes nothing."""
    torch.manual_seed(depth)
    sam = scrambled(build_sam(msgspec.structs.replace(tiny_config, decoder_depth=depth)), depth)
    fast, plain = DecoderGraph(sam), PlainDecoderGraph(sam)
    for graph in (fast, plain):
        graph.double()
    coords, labels, _ = prompts(tiny_config, batch, 2)
    shared = torch.randn(tiny_config.embedding_shape).double(), coords.double(), labels.double()
    given, has_mask = logits(tiny_config, masks).double(), torch.ones(1).double()
    with torch.no_grad():
        found = fast(*shared, given, has_mask)
        expected = plain(*shared, given.repeat_interleave(batch // masks, dim=0), has_mask)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() < EXACT * theirs.abs().max()


def test_ports(decoder_file: Path) -> None:
    """Prompts, points and masks are free, each by itself."""
    with open_session(decoder_file) as session:
        assert session.inputs == {
            "image_embeddings": ("tensor(float)", (1, 32, 8, 8)),
            "point_coords": ("tensor(float)", (None, None, 2)),
            "point_labels": ("tensor(float)", (None, None)),
            "mask_input": ("tensor(float)", (None, 1, 32, 32)),
            "has_mask_input": ("tensor(float)", (1,)),
        }
        assert session.outputs == {
            "low_res_masks": ("tensor(float)", (None, 3, 32, 32)),
            "pred_iou": ("tensor(float)", (None, 3)),
        }


@pytest.mark.export
def test_export_twice_gives_the_same_bytes(
    decoder_file: Path, small_sam: Any, tiny_config: SamConfig, tmp_path: Path
) -> None:
    write_decoder(small_sam, tiny_config, tmp_path / "decoder.onnx", lambda _: None)
    assert (tmp_path / "decoder.onnx").read_bytes() == decoder_file.read_bytes()
