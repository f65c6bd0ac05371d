"""The demo training's data and steps, on a scene small enough to reason about."""

import json

import cv2
import msgspec
import numpy as np
import pytest
import torch

from maskrt.export.demo.prompts import STRIDE, draw_batch
from maskrt.export.demo.scenes_data import (
    IGNORE,
    OUTSIDE,
    Drawn,
    SceneViews,
    TrainingScene,
    View,
    copy_paste,
    kinds_of,
    load_scenes,
    random_view,
)


def scene(height=96, width=128):
    """Left half sheet (0), right half body (1), a square toy (5) on the body."""
    instances = np.zeros((height, width), np.uint16)
    instances[:, width // 2 :] = 1
    instances[20:50, 80:110] = 5
    rgb = (instances[..., None] * np.array([10, 20, 30])).astype(np.uint8)
    return TrainingScene(rgb, instances, {0: Drawn("sheet", False), 1: Drawn("body", False), 5: Drawn("toy", True)})


def test_scenes_are_cut_to_their_region_and_scaled(tmp_path):
    whole = np.zeros((200, 300), np.uint16)
    whole[50:150, 100:250] = 3
    for folder in ("images", "instances"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.repeat((whole[..., None] * 50).astype(np.uint8), 3, 2))
    cv2.imwrite(str(tmp_path / "instances" / "a.png"), whole)
    about = {"roi_xywh": [100, 50, 150, 100], "objects": [{"id": 3, "kind": "toy", "occlusion": True}]}
    (tmp_path / "instances" / "a.json").write_text(json.dumps(about))
    (loaded,) = load_scenes(tmp_path, 75, workers=1)
    assert loaded.rgb.shape == (50, 75, 3)
    assert (loaded.instances == 3).all()
    assert (loaded.rgb == 150).all()
    assert kinds_of([loaded]) == ["toy"]
    with pytest.raises(FileNotFoundError, match="maskrt scenes"):
        load_scenes(tmp_path / "nothing", 75)


def test_a_view_beyond_the_picture_is_padded(rng):
    view = random_view(scene(), 160, rng)
    assert view.rgb.shape == (160, 160, 3)
    assert (view.instances != OUTSIDE).sum() == 96 * 128
    assert not view.rgb[view.instances == OUTSIDE].any()
    assert view.truth.sum() == 900


def test_copy_paste_adds_occlusions_with_new_ids_and_their_pixels(rng):
    target = random_view(scene(), 128, rng)
    for _ in range(20):
        pasted = copy_paste(target, random_view(scene(), 128, rng), rng)
        new = set(np.unique(pasted.instances)) - set(np.unique(target.instances))
        for identity in new:
            own = pasted.instances == identity
            assert pasted.objects[int(identity)] == Drawn("toy", True)
            assert (pasted.rgb[own] == np.array([50, 100, 150])).all()
            assert pasted.truth[own].all()
        kept = ~np.isin(pasted.instances, list(new))
        assert (pasted.rgb[kept] == target.rgb[kept]).all()


def test_targets_are_the_coverage_of_the_prompted_object():
    scenes = [scene()]
    batch = draw_batch(SceneViews(scenes, 128), kinds_of(scenes), 3, 8, (0, 0))
    side = 128 // STRIDE
    assert batch["images"].shape == (3, 3, 128, 128)
    assert batch["targets"].shape == (24, side, side)
    assert batch["targets"].min() >= 0
    assert batch["targets"].max() <= 1
    # The cell under a point belongs, at least in part, to the object that the point was drawn from.
    cells = batch["cells"].reshape(-1)
    assert (batch["targets"].flatten(1)[torch.arange(24), cells] > 0).all()
    x, y = batch["points"].reshape(24, 2).long().T
    assert (y // STRIDE * side + x // STRIDE == cells).all()
    assert set(batch["kinds"].unique().tolist()) <= {IGNORE, 0, 1, 2}


def test_every_cell_knows_the_box_of_its_object():
    """The toy's 30 x 30 pixels begin at (80, 20): in cells of 4, whose centres count, at column 20 and row 5."""
    view = View(np.pad(scene().rgb, ((0, 32), (0, 0), (0, 0))), np.pad(scene().instances, ((0, 32), (0, 0))), {})
    boxes = view.boxes(STRIDE) * 32
    assert boxes.shape == (4, 32, 32)
    assert boxes[:, 6, 24].tolist() == [23.5, 8.5, 7.0, 7.0]


def test_every_stage_lowers_its_loss_on_one_batch():
    from maskrt.export.architectures.sam import build_sam
    from maskrt.export.demo.model import DEMO_SAM, initialise
    from maskrt.export.demo.train_sam import PixelStage, PromptStage

    torch.manual_seed(0)
    sam = initialise(build_sam(msgspec.structs.replace(DEMO_SAM, image_size=128)))
    scenes = [scene()]
    batch = draw_batch(SceneViews(scenes, 128), kinds_of(scenes), 2, 4, (0, 1))
    pixel = PixelStage(sam, DEMO_SAM.prompt_dim // 8, 3)
    for stage in (pixel, PromptStage(sam, pixel)):
        stage.train()
        optimiser = torch.optim.AdamW(stage.parameters(), lr=1e-3)
        losses = []
        for _ in range(8):
            loss, iou = stage(batch)
            assert torch.isfinite(iou).all()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("joins", [1.0, 0.0])
def test_the_backbone_stays_as_it_is_until_it_joins(tmp_path, joins):
    from safetensors.torch import save_file

    from maskrt.export.architectures.deeplab import build_deeplabv3plus
    from maskrt.export.architectures.sam import SamConfig, build_sam
    from maskrt.export.demo import train_sam

    torch.manual_seed(0)
    segmenter = build_deeplabv3plus("resnet50", 2, decoder_channels=8, width_mult=0.125)
    save_file({key: value.clone() for key, value in segmenter.state_dict().items()}, tmp_path / "segmenter.safetensors")
    sizes = {"prompt_dim": 32, "decoder_heads": 2, "decoder_mlp_dim": 32, "iou_head_dim": 16}
    config = SamConfig(encoder="resnet", image_size=128, width_mult=0.125, feature_channels=8, **sizes)
    sam = build_sam(config)
    backbone = train_sam.start_from(sam.image_encoder, tmp_path / "segmenter.safetensors")
    before = [{key: value.clone() for key, value in part.state_dict().items()} for part in backbone]
    assert all(torch.equal(value, segmenter.encoder.state_dict()[key]) for key, value in before[0].items())
    scenes = [scene()]
    batch = draw_batch(SceneViews(scenes, 128), kinds_of(scenes), 2, 4, (0, 1))
    pixel = train_sam.PixelStage(sam, 4, 3)
    saved = []
    train_sam.train("pixel", pixel, iter(lambda: batch, None), 1e-3, 0.03, lambda: saved.append(1), backbone, joins)
    assert saved
    same = [
        torch.equal(part.state_dict()[key], old[key]) for part, old in zip(backbone, before, strict=True) for key in old
    ]
    assert all(same) if joins == 1 else not any(same)


def test_a_step_of_the_segmenter_reaches_every_weight(monkeypatch):
    from maskrt.export.architectures.deeplab import build_deeplabv3plus
    from maskrt.export.demo import train_segmenter

    torch.manual_seed(0)
    monkeypatch.setattr(train_segmenter, "SIDE", 128)
    batch = train_segmenter.draw_batch([scene()], ["body", "sheet", "toy"], (0, 0))
    assert [tuple(value.shape) for value in batch] == [(4, 3, 128, 128), (4, 128, 128), (4, 32, 32)]
    assert set(batch[1].unique().tolist()) == {IGNORE, 0, 1}
    model = build_deeplabv3plus("resnet50", 2, decoder_channels=16, width_mult=0.125)
    before = [value.detach().clone() for value in model.parameters()]
    train_segmenter.fit(model, 3, iter(lambda: batch, None), minutes=0.02)
    after = list(model.parameters())
    assert all(torch.isfinite(value).all() for value in after)
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_half_precision_weights_load(tmp_path):
    from maskrt.export.architectures.networks import load_into
    from maskrt.export.demo.model import save_half

    torch.manual_seed(0)
    layer, again = torch.nn.BatchNorm2d(5), torch.nn.BatchNorm2d(5)
    layer.running_mean.normal_()
    save_half(layer, tmp_path / "w.safetensors")
    load_into(again, tmp_path / "w.safetensors")
    assert again.running_mean.dtype == torch.float32
    assert torch.equal(again.running_mean, layer.running_mean.half().float())


def test_dilated_convolutions_get_the_right_gradient_under_autocast():
    from maskrt.export.demo.train_segmenter import protect_dilated

    torch.manual_seed(0)
    layer = torch.nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16, bias=False)
    x = torch.randn(2, 16, 24, 24)

    def gradient(autocast):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            layer(x).float().square().sum().backward()
        return layer.weight.grad.clone()

    exact = gradient(False)
    protect_dilated(torch.nn.Sequential(layer))
    assert torch.allclose(gradient(True), exact, rtol=1e-4, atol=1e-3)
