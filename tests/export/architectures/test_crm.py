"""CRM: the names of its public checkpoints, and every exact saving against the original's order of computation."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

from maskrt.benchmarks.peers.crm_steps import steps
from maskrt.export.architectures.crm import CrmConfig, build_crm, pixel_centres
from maskrt.export.bundles.crm_cascade import refine_plainly
from maskrt.export.bundles.refiner import halo_of, read_crm
from maskrt.export.graphs.crm_graphs import (
    BackboneGraph,
    CoarseGraph,
    FusionGraph,
    decode_window,
    decoder_weights,
    project,
)
from maskrt.kernels.pixel_decoder.tables import axis_table
from maskrt.runtime.bundle.specs import RefinerSpec
from maskrt.runtime.errors import CheckpointError, InputError

SPEC = RefinerSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), halo=24)


@pytest.fixture(scope="module")
def net(crm_spec: str) -> Any:
    return read_crm(crm_spec)


@pytest.fixture
def picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rough = np.zeros((67, 94), np.float32)
    rough[20:50, 30:70] = 1
    rough[48:60, 60:80] = 0.7
    return rng.integers(0, 256, (67, 94, 3), dtype=np.uint8), rough


def test_the_keys_of_public_checkpoints() -> None:
    with torch.device("meta"):
        state = build_crm(CrmConfig()).state_dict()
    assert len(state) == 367
    shapes = {name: list(value.shape) for name, value in state.items()}
    expected = {
        "feats.conv1.weight": [64, 4, 7, 7],
        "feats.layer1.0.downsample.0.weight": [256, 64, 1, 1],
        "feats.layer4.2.bn3.running_var": [2048],
        "aspp_.aspp1_128.atrous_conv.weight": [64, 64, 1, 1],
        "aspp_.aspp1_256.bn.bias": [64],
        "aspp_.aspp1_1024.atrous_conv.weight": [128, 1024, 1, 1],
        "aspp_.bn1_1024.running_mean": [128],
        "aspp_.last_conv.0.weight": [256, 256, 3, 3],
        "aspp_.last_conv.1.weight": [256],
        "imnet.layers.0.weight": [32, 262],
        "imnet.layers.6.weight": [32, 32],
        "imnet.layers.8.weight": [1, 32],
        "imnet.layers.8.bias": [1],
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert {name.split(".")[0] for name in state} == {"feats", "aspp_", "imnet"}
    assert sum(name.endswith("num_batches_tracked") for name in state) == 60


@pytest.mark.parametrize(
    "sizes",
    [{"width": 0}, {"hidden": 0}, {"layers": 0}, {"blocks": (1, 0, 1, 1)}, {"blocks": (1, 1, 1, -1)}],
)
def test_sizes_that_no_network_has(sizes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="has a size below 1"):
        build_crm(CrmConfig(**sizes))


@pytest.mark.parametrize("scales", [(), (0.5, 0.0), (1.5,), (float("nan"),)])
def test_scales_that_no_cascade_has(scales: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="must lie above 0"):
        build_crm(CrmConfig(scales=scales))


def test_a_checkpoint_is_loaded_strictly(crm_spec: str, tmp_path: Path) -> None:
    """The prefix that nn.DataParallel leaves goes; nothing else may differ."""
    state = torch.load(crm_spec.partition(":")[2], weights_only=True)
    assert all(name.startswith("module.") for name in state)
    found = read_crm(crm_spec)
    assert not found.training
    assert len(found.state_dict()) == len(state)
    for name, value in found.state_dict().items():
        assert torch.equal(state[f"module.{name}"], value), name

    def written(changed: dict[str, Any]) -> str:
        torch.save(changed, tmp_path / "crm.pth")
        (tmp_path / "crm.json").write_bytes(msgspec.json.encode(found.config))
        return f"custom:{tmp_path / 'crm.pth'}"

    read_crm(written({name.removeprefix("module."): value for name, value in state.items()}))
    last = "module.imnet.layers.8.bias"
    with pytest.raises(CheckpointError, match=r"missing.*imnet\.layers\.8\.bias"):
        read_crm(written({name: value for name, value in state.items() if name != last}))
    with pytest.raises(CheckpointError, match=r"imnet\.layers\.8\.bias is \[2\], expected \[1\]"):
        read_crm(written({**state, last: torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=r"imnet\.more"):
        read_crm(written({**state, "module.imnet.more": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match="does not fit"):
        read_crm(written(state).replace("custom:", "resnet50:"))
    (tmp_path / "crm.json").write_text('{"widths": 8}')
    with pytest.raises(InputError, match="is not a CrmConfig"):
        read_crm(f"custom:{tmp_path / 'crm.pth'}")
    with pytest.raises(InputError, match="resnet51"):
        read_crm(f"resnet51:{tmp_path / 'crm.pth'}")


@torch.no_grad()
def test_a_window_decodes_as_the_original(net: Any, rng: np.random.Generator) -> None:
    for height, width, rows, columns in (
        (40, 56, 20, 28),
        (41, 57, 3, 7),
        (5, 9, 12, 31),
        (1, 1, 1, 1),
        (90, 2, 44, 1),
    ):
        features = torch.from_numpy(rng.standard_normal((1, net.config.features, rows, columns)).astype(np.float32))
        coords = pixel_centres(height, width).reshape(1, -1, 2)
        cell = torch.ones_like(coords) * torch.tensor([2 / height, 2 / width])
        expected = net.decode(features, coords, cell).reshape(height, width)
        tables = axis_table(height, rows), axis_table(width, columns)
        projected = project(net.imnet, features)
        found = decode_window(net.imnet, projected, *tables)[0]
        assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
        top, left = height // 3, width // 2
        part = decode_window(net.imnet, projected, tables[0].part(top, height), tables[1].part(left, width))[0]
        torch.testing.assert_close(part, found[top:, left:], atol=1e-6, rtol=1e-6)


def test_every_step_gives_the_originals_answer(net: Any, picture: tuple[np.ndarray, np.ndarray]) -> None:
    expected = refine_plainly(net, SPEC, *picture)
    assert expected.shape == picture[1].shape
    assert 0.01 < (expected > 0.5).mean() < 0.99
    assert expected.std() > 0.05
    names = ["pytorch_original", "pytorch_no_layer4", "pytorch_projected", "pytorch_index_tables"]
    made = steps(net)
    assert list(made) == names
    for name, (features, decode) in made.items():
        found = refine_plainly(net, SPEC, *picture, features, decode)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5, err_msg=name)


def test_the_cascade_starts_from_the_mask(net: Any, picture: tuple[np.ndarray, np.ndarray]) -> None:
    rgb, rough = picture
    answer = refine_plainly(net, SPEC, rgb, rough)
    assert np.abs(answer - refine_plainly(net, SPEC, rgb, np.roll(rough, 9, axis=1))).max() > 0.1
    assert np.abs(answer - refine_plainly(net, SPEC, np.roll(rgb, 9, axis=0), rough)).max() > 0.1
    assert (refine_plainly(net, SPEC, rgb, np.zeros_like(rough)) == 0).all()


@torch.no_grad()
def test_the_graphs_make_the_originals_features(net: Any, rng: np.random.Generator) -> None:
    """Fused in one window, with zeros where the picture ends."""
    pixels = torch.from_numpy(rng.standard_normal((1, 4, 46, 62)).astype(np.float32))
    expected = project(net.imnet, net.features(pixels))[0].permute(1, 2, 0)
    size = expected.shape[:2]
    middle, coarse = BackboneGraph(net)(pixels)
    products = CoarseGraph(net)(coarse).flatten(0, 1)[None]
    around = (1, 1, 1, 1)

    def enlarged(scale: Any) -> Any:
        large = torch.nn.functional.interpolate(scale, size, mode="bilinear", align_corners=True)
        return torch.nn.functional.pad(large, around)

    inside = torch.nn.functional.pad(torch.ones(1, 1, *size), around)
    taps = enlarged(products)[0].unflatten(0, (9, -1))
    shifted = [taps[3 * y + x][:, y : y + size[0], x : x + size[1]] for y in range(3) for x in range(3)]
    # The first cell's 7 x 7 begins 3 pixels before the picture, and the cell before it 2 pixels earlier.
    window = torch.nn.functional.pad(pixels, (5, 4, 5, 4))
    found = FusionGraph(net)(window, inside, enlarged(middle), torch.stack(shifted).sum(0)[None])
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_the_decoders_arrays(net: Any) -> None:
    weights, layers = decoder_weights(net.imnet), net.imnet.layers
    assert weights.hidden.shape == (3, 32, 32)
    np.testing.assert_array_equal(weights.placed, layers[0].weight[:, -6:].detach().numpy())
    np.testing.assert_array_equal(weights.hidden[2], layers[6].weight.detach().numpy())
    np.testing.assert_array_equal(weights.hidden_bias[0], layers[2].bias.detach().numpy())
    np.testing.assert_array_equal(weights.last, layers[8].weight[0].detach().numpy())
    assert weights.last_bias == layers[8].bias.item()


def test_halos() -> None:
    assert halo_of(CrmConfig()) == 136
    assert halo_of(CrmConfig(width=8, blocks=(1, 1, 1, 1))) == 24
    assert halo_of(CrmConfig(blocks=(3, 4, 6, 0))) == 136


@pytest.mark.parametrize("blocks", [(1, 1, 1, 1), (2, 1, 1, 0), (1, 2, 1, 0), (1, 1, 3, 0)])
@torch.no_grad()
def test_nothing_beyond_the_halo_reaches_a_window(blocks: tuple[int, int, int, int], scrambled: Any) -> None:
    """A changed pixel is felt less far away than the halo, but not much less: to within two or three cells of 8."""
    torch.manual_seed(1)
    config = CrmConfig(width=4, blocks=blocks)
    graph, halo = BackboneGraph(scrambled(build_crm(config), 1)), halo_of(config)
    size = 2 * halo + 64
    pixels = torch.randn(1, 4, 16, size)
    before = graph(pixels)
    pixels[..., halo + 32 :] += 3
    for stride, (old, new) in zip((4, 8), zip(before, graph(pixels), strict=True), strict=True):
        felt = torch.nonzero((old != new).any(dim=1).any(dim=1)[0])[0].item() * stride
        assert felt >= 32  # cells of pixels below 32, at least a halo away, keep their answer
        if stride == 8:
            assert felt <= 32 + 16 + 8
