"""The demo training's data and steps, on a scene small enough to reason about."""

import json

import cv2
import numpy as np
import pytest
import torch

from maskrt.export.demo.prompts import STRIDE, draw_batch
from maskrt.export.demo.scenes_data import (
    IGNORE,
    OUTSIDE,
    Drawn,
    TrainingScene,
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
    target = random_view(scene(), 96, rng)
    for _ in range(20):
        pasted = copy_paste(target, random_view(scene(), 96, rng), rng)
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
    batch = draw_batch(scenes, kinds_of(scenes), 3, 8, 96, (0, 0))
    side = 96 // STRIDE
    assert batch["images"].shape == (3, 3, 96, 96)
    assert batch["targets"].shape == (24, side, side)
    assert batch["targets"].min() >= 0
    assert batch["targets"].max() <= 1
    # The cell under a point belongs, at least in part, to the object that the point was drawn from.
    cells = batch["cells"].reshape(-1)
    assert (batch["targets"].flatten(1)[torch.arange(24), cells] > 0).all()
    inside = batch["points"].reshape(3, 8, 2) - batch["corners"].flip(1)[:, None]
    assert (inside >= 0).all()
    assert (inside < 96).all()
    assert set(batch["kinds"].unique().tolist()) <= {IGNORE, 0, 1, 2}


def test_every_stage_lowers_its_loss_on_one_batch():
    from maskrt.export.demo.model import DEMO_SAM, initialise
    from maskrt.export.demo.train_sam import PixelStage, PromptStage
    from maskrt.export.sam import build_sam

    torch.manual_seed(0)
    sam = initialise(build_sam(DEMO_SAM))
    scenes = [scene()]
    batch = draw_batch(scenes, kinds_of(scenes), 2, 4, 96, (0, 1))
    pixel = PixelStage(sam, DEMO_SAM.prompt_dim // 8, 3)
    for stage in (pixel, PromptStage(sam, 1024, pixel), PromptStage(sam, DEMO_SAM.image_size)):
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
