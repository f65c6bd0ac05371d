"""How the demo SAM learns from people who click, on scenes small enough to reason about."""

import json
from itertools import count
from types import SimpleNamespace

import cv2
import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

from maskrt.export.architectures.sam import build_sam
from maskrt.export.bundles.sams import read_sam
from maskrt.export.demo import clicking, measure_clicks, train_clicks, train_sam
from maskrt.export.demo.clicking import begin, correct, go_on, innermost, rough_box, truths
from maskrt.export.demo.model import DEMO_SAM, initialise, save_half
from maskrt.export.demo.prompts import STRIDE, draw_batch
from maskrt.export.demo.scenes_data import GROUND, Drawn, SceneViews, TrainingScene, View, load_scenes
from maskrt.export.demo.shapes import KINDS, draw_shapes

SIZE = 128


def scene(height: int = 96, width: int = SIZE) -> TrainingScene:
    """Left half sheet (0), right half body (1), a square toy (5) on the body."""
    instances = np.zeros((height, width), np.uint16)
    instances[:, width // 2 :] = 1
    instances[20:50, 80:110] = 5
    rgb = (instances[..., None] * np.array([40, 30, 20])).astype(np.uint8)
    return TrainingScene(rgb, instances, {0: Drawn("sheet", False), 1: Drawn("body", False), 5: Drawn("toy", True)})


def batch(number: int = 0, prompts: int = 4):
    return draw_batch(SceneViews([scene()], SIZE), ["body", "sheet", "toy"], 1, prompts, (0, number))


def tiny_sam():
    torch.manual_seed(0)
    sizes = {"image_size": SIZE, "width_mult": 0.125, "feature_channels": 8, "prompt_dim": 32, "decoder_heads": 2}
    config = msgspec.structs.replace(DEMO_SAM, **sizes, decoder_mlp_dim=32, iou_head_dim=16)
    return initialise(build_sam(config)), config


def write_folder(folder, instances):
    for name in ("images", "instances"):
        (folder / name).mkdir()
    cv2.imwrite(str(folder / "images" / "a.png"), np.repeat((instances[..., None] * 40).astype(np.uint8), 3, 2))
    cv2.imwrite(str(folder / "instances" / "a.png"), instances)
    objects = [{"id": int(i), "kind": f"k{i}", "occlusion": False} for i in np.unique(instances)]
    about = {"roi_xywh": [10, 10, 80, 60], "objects": objects}
    (folder / "instances" / "a.json").write_text(json.dumps(about))


def test_innermost_against_brute_force(rng):
    for _ in range(20):
        region = rng.random((9, 13)) < 0.8
        outside = np.argwhere(~np.pad(region, 1)) - 1
        distance = np.array(
            [[np.hypot(*(outside - (y, x)).T).min() for x in range(region.shape[1])] for y in range(region.shape[0])]
        )
        depth, cell = innermost(region)
        assert depth == pytest.approx(distance.max(), rel=1e-5)
        assert distance.flat[cell] == pytest.approx(distance.max(), rel=1e-5)
    assert innermost(np.zeros((4, 5), np.bool_))[0] == 0


def test_a_click_says_what_is_wrong(rng):
    for _ in range(200):
        truth, answer = rng.random((2, 8, 11)) < 0.5
        cell, positive = correct(truth, answer, rng)
        assert truth.flat[cell] == positive
        assert answer.flat[cell] != positive
    cell, positive = correct(truth, truth, rng)
    assert positive
    assert truth.flat[cell]


def test_a_box_holds_its_object_more_or_less(rng):
    truth = np.zeros((32, 32), np.bool_)
    truth[5:15, 12:28] = True
    boxes = np.stack([rough_box(truth, rng) for _ in range(300)])
    assert boxes.min() >= 0
    assert boxes.max() <= 127
    assert np.abs(boxes - [48, 20, 111, 59]).max(0).tolist() <= [14, 9, 14, 9]
    assert np.abs(boxes.mean(0) - [48, 20, 111, 59]).max() < 2


def test_thin_objects_have_cells():
    targets = torch.zeros(2, 4, 4)
    targets[0, 1] = 0.25
    targets[1, :2], targets[1, 2] = 1, 0.5
    assert truths(targets).sum((1, 2)).tolist() == [4, 8]


def test_episodes_go_on_with_clicks_and_the_answer_so_far(rng, monkeypatch):
    monkeypatch.setattr(clicking, "SHARE_BOXES", 0)
    monkeypatch.setattr(clicking, "SHARE_ROUGH", 0)
    monkeypatch.setattr(clicking, "SHARE_UNHINTED", 0)
    episode = begin(batch(), torch.zeros(1, 8, 8, 8), rng)
    assert episode.ambiguous
    assert episode.hint is None
    random = torch.Generator().manual_seed(0)
    for clicks in range(2, 6):
        episode.logits = torch.randn(4, 32, 32, generator=random)
        later = go_on(episode, rng)
        assert later.labels.shape == (4, clicks)
        assert later.turns == episode.turns - 1
        assert not later.ambiguous
        assert torch.equal(later.hint[:, 0], episode.logits)
        columns, rows = (later.points[:, -1] // STRIDE).long().T
        assert episode.visible[rows, columns].all()
        wrong = torch.from_numpy(truths(episode.targets))[torch.arange(4), rows, columns]
        assert torch.equal(wrong.long(), later.labels[:, -1])
        episode = later


def test_boxes_take_the_place_of_the_first_point(rng, monkeypatch):
    monkeypatch.setattr(clicking, "SHARE_BOXES", 1)
    episode = begin(batch(), torch.zeros(1, 8, 8, 8), rng)
    assert episode.boxes.shape == (4, 4)
    assert episode.labels.shape == (4, 0)
    assert not episode.ambiguous
    episode.logits = torch.zeros(4, 32, 32)
    later = go_on(episode, rng)
    assert torch.equal(later.boxes, episode.boxes)
    assert later.points.shape == (4, 1, 2)
    assert not later.ambiguous


def test_rough_masks_come_with_a_click_on_what_is_wrong(rng, monkeypatch):
    monkeypatch.setattr(clicking, "SHARE_BOXES", 0)
    monkeypatch.setattr(clicking, "SHARE_ROUGH", 1)
    monkeypatch.setattr(clicking, "SHARE_UNHINTED", 1)  # of later turns: the first one's mask is the point of it
    damaged, counts = 0, set()
    for number in range(10):
        episode = begin(batch(number), torch.zeros(1, 8, 8, 8), rng)
        assert not episode.ambiguous
        counts.add(episode.labels.shape[1])
        assert clicking.TURNS[0] - 1 <= episode.turns <= clicking.TURNS[1] - 1
        truth = torch.from_numpy(truths(episode.targets))
        columns, rows = (episode.points // STRIDE).long().permute(2, 0, 1)
        every = truth[torch.arange(4)[:, None], rows, columns]
        assert torch.equal(every.long(), episode.labels)
        places = torch.arange(4), rows[:, -1], columns[:, -1]
        rough = (episode.hint[:, 0] > 0) & torch.from_numpy(episode.visible)
        wrong = (rough != truth).any((1, 2))
        assert (rough != truth)[places][wrong].all()
        overlap = (rough & truth).sum((1, 2)) / (rough | truth).sum((1, 2))
        assert overlap.mean() > 0.4
        damaged += int(wrong.sum())
    assert damaged > 20
    assert len(counts) > 3
    assert counts <= set(range(1, clicking.EARLIER + 2))


def test_turns_vary(rng):
    turns = [begin(batch(number), torch.zeros(1, 8, 8, 8), rng).turns for number in range(60)]
    assert min(turns) == clicking.TURNS[0] - 1
    assert max(turns) == clicking.TURNS[1] - 1


def test_shapes_are_drawn_where_their_instances_say(rng):
    for _ in range(10):
        view = draw_shapes(SIZE, rng)
        assert view.rgb.shape == (SIZE, SIZE, 3)
        assert view.rgb.dtype == np.uint8
        assert set(np.unique(view.instances)) <= set(view.objects)
        assert view.objects[0].kind == GROUND
        assert {drawn.kind for drawn in view.objects.values()} == set(KINDS)
        assert (view.instances > 0).mean() > 0.01
    again, other = (draw_shapes(SIZE, np.random.default_rng(seed)) for seed in (3, 4))
    assert (again.rgb == draw_shapes(SIZE, np.random.default_rng(3)).rgb).all()
    assert (again.rgb != other.rgb).any()


def test_nobody_clicks_on_the_ground():
    views = []

    def draw(rng: np.random.Generator) -> View:
        views.append(draw_shapes(SIZE, rng))
        return views[-1]

    drawn = draw_batch(draw, KINDS, 3, 40, (0, 0))
    for view, points in zip(views, drawn["points"].reshape(3, 40, 2).numpy().astype(int), strict=True):
        assert (view.instances[points[:, 1], points[:, 0]] > 0).all()
    kinds = drawn["kinds"].flatten(1).gather(1, drawn["cells"])
    centres = np.stack([view.instances[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].ravel() > 0 for view in views])
    assert (kinds.numpy() == np.take_along_axis(centres, drawn["cells"].numpy(), 1)).all()
    assert drawn["targets"].flatten(1)[torch.arange(120), drawn["cells"].flatten()].min() > 0


def test_pictures_come_from_every_source(rng):
    draw = train_clicks.Mixture([lambda _: "a", lambda _: "b", lambda _: "c"], [0.5, 0.5, 0])
    assert {draw(rng) for _ in range(50)} == {"a", "b"}


def test_another_size_has_the_same_weights():
    sam, config = tiny_sam()
    other, changed = train_clicks.resized(sam, config, 192)
    assert changed.image_size == 192
    before, after = sam.state_dict(), other.state_dict()
    different = {key for key in before if before[key].shape != after[key].shape}
    assert different == {"image_encoder.rows", "image_encoder.columns"}
    assert all(torch.equal(before[key], after[key]) for key in before if key not in different)
    rows, wider = (state["image_encoder.rows"].squeeze().numpy() for state in (before, after))
    assert np.allclose(wider[:, 0], rows[:, 0])  # half a row from the border in either: nothing beyond to mix in
    at = (np.arange(12) + 0.5) * 8 / 12 - 0.5
    assert all(
        np.allclose(new, np.interp(at, np.arange(8), old), atol=1e-6) for new, old in zip(wider, rows, strict=True)
    )


@pytest.mark.parametrize("first", [1, 3])
def test_the_single_mask_starts_as_one_of_the_three(first):
    sam, _ = tiny_sam()
    train_clicks.start_untrained(sam, first)
    drawn = batch()
    with torch.no_grad():
        sparse, dense = sam.prompt_encoder((drawn["points"], drawn["labels"]), None, torch.randn(4, 1, 32, 32))
        none = sam.prompt_encoder((drawn["points"], drawn["labels"]), None, None)[1]
        masks, iou = sam.mask_decoder.predict_masks(
            train_sam.encode(sam, drawn).float(), sam.prompt_encoder.get_dense_pe(), sparse, dense
        )
    assert torch.allclose(masks[:, 0], masks[:, first], rtol=1e-3, atol=1e-4)
    assert torch.allclose(iou[:, 0], iou[:, first], atol=1e-4)
    assert (dense - none).abs().mean() < 0.2
    assert train_clicks.most_chosen(sam, drawn) in (1, 2, 3)


@pytest.mark.export
def test_everything_learns_but_the_batch_statistics(rng, monkeypatch):
    sam, _ = tiny_sam()
    drawn, seconds, saved = draw_batch(SceneViews([scene()], SIZE), ["body", "sheet", "toy"], 2, 4, (0, 0)), count(), []
    stage = train_clicks.ClickStage(sam, rng)
    before = {key: value.clone() for key, value in sam.state_dict().items()}
    losses = []

    def again():
        with torch.no_grad():
            losses.append(torch.stack([stage(drawn)[0] for _ in range(4)]).mean().item())
        return drawn

    monkeypatch.setattr(train_sam.time, "monotonic", lambda: next(seconds))  # so that a step takes a second
    train_sam.train("clicks", stage, iter(again, None), 3e-3, 1.5, lambda: saved.append(1), [], 1.0)
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:3])
    assert saved == [1]
    same = {key for key, value in sam.state_dict().items() if torch.equal(value, before[key])}
    statistics = {key for key in before if key.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert statistics <= same
    assert "image_encoder.encoder.conv1.weight" not in same
    assert "mask_decoder.mask_tokens.weight" not in same


def test_the_answer_is_chosen_as_the_runtime_does(monkeypatch, rng):
    sam, _ = tiny_sam()
    masks = torch.arange(4.0)[None, :, None, None].expand(4, 4, 32, 32).clone()
    predicted = torch.tensor([[0.9, 0.1, 0.2, 0.3], [0.9, 0.5, 0.2, 0.3], [0.0, 0.1, 0.7, 0.3], [1.0, 0.1, 0.2, 0.3]])
    turns = []

    def watched(episode, rng):
        turns.append(episode)
        return go_on(episode, rng)

    stage = train_clicks.ClickStage(sam, rng)
    monkeypatch.setattr(stage.decoder, "in_bfloat16", lambda: lambda *_: (masks, predicted))
    monkeypatch.setattr(clicking, "SHARE_BOXES", 0)
    monkeypatch.setattr(clicking, "SHARE_ROUGH", 0)
    monkeypatch.setattr(clicking, "TURNS", (3, 3))
    monkeypatch.setattr(train_clicks, "go_on", watched)
    _, iou = stage(batch())
    assert iou.shape == (12,)
    first, second = turns
    assert first.logits[:, 0, 0].tolist() == [3, 1, 2, 3]
    assert not second.logits.any()


@pytest.mark.export
def test_training_writes_a_sam_that_loads(tmp_path, monkeypatch):
    sam, config = tiny_sam()
    save_half(sam, tmp_path / "sam.safetensors")
    (tmp_path / "sam.json").write_bytes(msgspec.json.encode(config))
    write_folder(tmp_path, np.pad(scene().instances, 4))
    arguments = ["train_clicks", "--scenes", tmp_path, "--sam", tmp_path / "sam.safetensors", "--out", tmp_path / "out"]
    monkeypatch.setattr("sys.argv", [*map(str, arguments), "--minutes", "0.02"])
    monkeypatch.setattr(train_clicks, "SIZE", 96)
    train_clicks.main()
    again, same = read_sam(f"custom:{tmp_path / 'out' / 'sam_clicks.safetensors'}")
    assert same == msgspec.structs.replace(config, image_size=96)
    before = read_sam(f"custom:{tmp_path / 'sam.safetensors'}")[0].state_dict()
    own = {key: value for key, value in again.state_dict().items() if value.shape == before[key].shape}
    changed = {key for key, value in own.items() if not torch.equal(value, before[key])}
    assert "image_encoder.encoder.conv1.weight" in changed
    assert "mask_decoder.mask_tokens.weight" in changed
    assert "prompt_encoder.mask_downscaling.6.weight" in changed


def test_whole_scenes_and_their_regions(tmp_path):
    write_folder(tmp_path, scene().instances)
    (region,), (whole,) = (load_scenes(tmp_path, 80, workers=1, whole=whole) for whole in (False, True))
    assert region.instances.shape == (60, 80)
    assert (region.instances == scene().instances[10:70, 10:90]).all()
    assert whole.instances.shape == (60, 80)
    assert set(np.unique(whole.instances)) == {0, 1, 5}
    assert whole.rgb.shape == (60, 80, 3)


def test_measuring_with_a_network_that_knows_the_truth():
    drawn = scene()
    padded = np.full((SIZE, SIZE), 99)
    padded[: drawn.instances.shape[0]] = drawn.instances
    seen = []

    def prompts(points, boxes, hint):
        seen.append((points[0], points[1], hint))
        return None, None

    def predict_masks(*_):
        """Mask 2 is the object at the first point, cell by cell, and the one that is predicted best; mask 0 is all."""
        points = seen[-1][0]
        identities = [padded[int(y), int(x)] for x, y in points[:, 0]]
        cells = torch.from_numpy(np.stack([padded[2::4, 2::4] == identity for identity in identities]))
        masks = torch.full((len(points), 4, 32, 32), -1.0)
        masks[:, 2], masks[:, 0] = cells * 2.0 - 1, 1
        return masks, torch.tensor([[2.0, 0.1, 0.5, 0.2]]).expand(len(points), -1)

    prompts.get_dense_pe = lambda: None
    encoder = type("Encoder", (), {"img_size": SIZE, "__call__": lambda self, pixels: pixels})()
    decoder = SimpleNamespace(predict_masks=predict_masks)
    sam = SimpleNamespace(image_encoder=encoder, prompt_encoder=prompts, mask_decoder=decoder)
    iou = measure_clicks.measure(sam, [drawn], clicks=3)
    assert iou.shape == (3, 3)
    assert iou[:, 0].min() > 0.85
    areas = np.array([(drawn.instances == identity).sum() for identity in (0, 1, 5)])
    assert iou[:, 1] == pytest.approx(areas / drawn.instances.size)
    assert seen[0][2] is None
    assert seen[1][2].shape == (3, 1, 32, 32)
    # Where all is taken for the object, the next click is outside it; all clicks are inside the picture.
    assert (seen[2][1][:, 2] == 0).all()
    columns, rows = seen[2][0][:, 2].long().T
    assert (rows < drawn.instances.shape[0]).all()
    assert (drawn.instances[rows, columns] != np.array([0, 1, 5])).all()
