"""The training of the demo's U-Nets: their data, their loss, their steps."""

from collections.abc import Iterator
from itertools import count

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

import time

from maskrt.export.architectures.unet import UNet
from maskrt.export.demo import train_unets
from maskrt.export.demo.scenes_data import Drawn, TrainingScene
from maskrt.export.demo.train_unets import (  # type: ignore[attr-defined]
    MEAN,
    SHRINK,
    SIZE,
    STD,
    Batch,
    Sample,
    batch_of,
    crop,
    dice_of,
    draw_baseline,
    draw_high,
    draw_low,
    initialise,
    loss_of,
    padded,
    pictures_of,
)


def scene(height: int = 640, width: int = SIZE) -> TrainingScene:
    """A square toy of 300 pixels, which is an occlusion, on a body, which is none."""
    instances = np.ones((height, width), np.uint16)
    instances[100:400, 200:500] = 5
    rgb = np.repeat((40 * instances[..., None]).astype(np.uint8), 3, 2)
    return TrainingScene(rgb, instances, {1: Drawn("body", False), 5: Drawn("toy", True)})


def test_pictures_say_what_is_occluded() -> None:
    (whole,), small = (pictures_of([scene()], network) for network in ("high", "low"))
    assert whole.truth.sum() == 300 * 300
    assert [picture.truth.shape for picture in small] == [(80, 128), (91, 145), (101, 162), (112, 179)]
    for picture in small:
        assert picture.rgb[picture.truth].min() >= 100  # scaled together


def test_what_each_network_sees(rng: np.random.Generator) -> None:
    small, (whole,) = (pictures_of([scene()], network) for network in ("low", "high"))
    assert {part.truth.shape for part in draw_low(small, rng)} == {(SIZE // SHRINK, SIZE // SHRINK)}
    for _ in range(5):
        patches = draw_high([whole], rng)
        (side,) = {side for part in patches for side in part.truth.shape}
        assert side in train_unets.PATCHES
        assert len(patches) * side**2 == train_unets.PIXELS["high"]
    shapes = [part.truth.shape for part in draw_baseline([whole], rng)]
    assert set(shapes) <= {(640, SIZE), (SIZE, 640), (SIZE, SIZE)}
    assert len(set(shapes)) == 1


def test_patches_are_rather_divided(rng: np.random.Generator) -> None:
    (picture,) = pictures_of([scene()], "high")
    chosen = np.mean([abs(part.truth.mean() - 0.5) for _ in range(5) for part in draw_high([picture], rng)])
    any_crop = np.mean([abs(crop(picture, 128, rng).truth.mean() - 0.5) for _ in range(200)])
    assert chosen < 0.8 * any_crop


def test_beyond_the_picture_it_is_black() -> None:
    picture = Sample(np.full((3, 5, 3), 200, np.uint8), np.ones((3, 5), np.bool_))
    frame = padded(picture, (4, 8))
    assert frame.truth.sum() == 15
    assert frame.rgb.sum() == 200 * 45
    assert (frame.rgb[:3, :5] == 200).all()


def test_a_batch_is_normalised_as_the_bundle_declares(rng: np.random.Generator) -> None:
    picture = Sample(np.full((32, 32, 3), 128, np.uint8), np.zeros((32, 32), np.bool_))
    images, truth = batch_of([picture] * 40, rng)
    assert images.shape == (40, 3, 32, 32)
    assert truth.shape == (40, 1, 32, 32)
    back = images.numpy() * np.array(STD)[:, None, None] + np.array(MEAN)[:, None, None]
    values = back[:, :, 0, 0].mean(1) - 128 / 255
    assert (np.abs(values) < 1e-6).sum() >= 8  # half of them are as they were
    assert 0.01 < np.abs(values).max() <= 0.1 * (1 + 128 / 255)


def test_loss_against_its_formula() -> None:
    random = torch.Generator().manual_seed(0)
    logits, truth = torch.randn(2, 1, 4, 4, generator=random), torch.rand(2, 1, 4, 4, generator=random).round()
    p, t = logits.double().sigmoid(), truth.double()
    right = torch.where(t == 1, p, 1 - p)
    alpha = torch.where(t == 1, 0.25, 0.75)
    expected = (-alpha * (1 - right) ** 2 * right.log()).mean() + 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    assert float(loss_of(logits, truth)) == pytest.approx(float(expected), rel=1e-5)
    assert float(dice_of(truth, truth)) == 1
    assert float(loss_of(60 * truth - 30, truth)) < 1e-6


def test_initial_weights_keep_the_scale() -> None:
    torch.manual_seed(0)
    network = UNet(3, 16)
    initialise(network)
    with torch.no_grad():
        logits = network(torch.randn(2, 3, 128, 128))
    assert 0.1 < float(logits.std()) < 10


def test_training_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, rng = UNet(3, 4), np.random.default_rng(0)
    initialise(network)
    picture = Sample(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.bool_))
    picture.rgb[16:48, 16:48], picture.truth[16:48, 16:48] = 250, True

    def source() -> Iterator[Batch]:
        while True:
            yield batch_of([picture] * 4, rng)

    @torch.no_grad()
    def loss() -> float:
        images, truth = batch_of([picture], np.random.default_rng(1))
        return float(loss_of(network(images), truth))

    before = loss()
    seconds = count()
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))  # so that a step takes a second
    train_unets.fit(network, "high", source(), minutes=2)
    assert loss() < 0.5 * before
