"""Decoding pixels: tables against PyTorch's grid samples, the kernel against its definition."""

from types import ModuleType

import numpy as np
import pytest

from maskrt.kernels.pixel_decoder import cpu, reference
from maskrt.kernels.pixel_decoder.tables import axis_table
from maskrt.kernels.pixel_decoder.types import DecoderWeights, Grid

IMPLEMENTATIONS = [cpu, reference]


def random_weights(rng: np.random.Generator, width: int, layers: int = 3) -> DecoderWeights:
    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    hidden = draw(layers, width, width) * np.float32(1.4)
    return DecoderWeights(
        draw(width, 6), draw(width), hidden, draw(layers, width), draw(width) * 3, np.float32(rng.normal())
    )


def grid_of(height: int, width: int, weights: DecoderWeights) -> Grid:
    rows, columns = axis_table(height, -(-height // 2)), axis_table(width, -(-width // 2))
    return Grid.of(rows, columns, weights)


def decoded(module: ModuleType, features: np.ndarray, origin: tuple[int, int], grid: Grid, pixels, weights):
    out = np.full(pixels.size, np.nan, np.float32)
    module.decode_pixels(features, origin, grid, pixels, weights, out)
    return out


@pytest.mark.parametrize("pixels_cells", [(1, 1), (2, 1), (7, 4), (8, 1), (9, 9), (500, 3), (3, 20), (4096, 2048)])
def test_tables_at_the_ends(pixels_cells: tuple[int, int]) -> None:
    pixels, cells = pixels_cells
    table = axis_table(pixels, cells)
    assert (table.cells.min(), table.cells.max()) == (0, cells - 1) or pixels < cells
    assert (np.diff(table.cells, axis=0) >= 0).all()
    step = table.cells[:, 1] - table.cells[:, 0]
    assert ((step >= 0) & (step <= 2)).all()
    assert table.cells.dtype == np.int64
    assert table.relative.dtype == table.places.dtype == np.float32
    part = table.part(1, 3)
    assert part.cells.tolist() == table.cells[1:3].tolist()
    assert part.relative.tolist() == table.relative[1:3].tolist()
    assert (part.places.tolist(), part.cell) == (table.places[1:3].tolist(), table.cell)


def test_a_table_written_out() -> None:
    """Four pixels above two cells: centres at -0.75, -0.25, ... and at -0.5, 0.5."""
    table = axis_table(4, 2)
    assert table.places.tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert table.cells.tolist() == [[0, 0], [0, 1], [0, 1], [1, 1]]
    assert table.relative.tolist() == [[-0.5, -0.5], [0.5, -1.5], [1.5, -0.5], [0.5, 0.5]]
    assert table.cell == 1


def test_tables_read_what_grid_sample_reads(rng: np.random.Generator) -> None:
    """The original finds cells with eight nearest samples per point."""
    torch = pytest.importorskip("torch", reason="needs maskrt[export]")
    from maskrt.export.architectures.crm import EPSILON, pixel_centres

    sizes = [(1, 1), (2, 1), (5, 3), (64, 32), (1, 9), (224, 14), (1000, 63), (3004, 188)]
    sizes += [tuple(pair) for pair in rng.integers(1, 400, (40, 2)).tolist()]
    for pixels, cells in sizes:
        table = axis_table(pixels, cells)
        places = pixel_centres(pixels, 1)[:, 0, 0]
        np.testing.assert_array_equal(table.places, places.numpy())
        centres = pixel_centres(cells, 1).permute(2, 0, 1)[None, :1]
        index = torch.arange(cells).float()[None, None, :, None]
        for side, sign in enumerate((-1, 1)):
            shift = torch.tensor([sign * (2 / cells / 2) + EPSILON])
            at = (places + shift).clamp(-1 + EPSILON, 1 - EPSILON)
            where = torch.stack([torch.zeros(pixels), at], dim=-1)[None, :, None]
            read, centre = (
                torch.nn.functional.grid_sample(values, where, mode="nearest", align_corners=False)[0, 0, :, 0]
                for values in (index, centres)
            )
            np.testing.assert_array_equal(table.cells[:, side], read.long().numpy(), err_msg=f"{pixels}, {cells}")
            np.testing.assert_array_equal(table.relative[:, side], ((places - centre) * cells).numpy())
        assert table.cell == (torch.tensor(2 / pixels) * cells).item()


@pytest.mark.parametrize("width", [1, 4, 5, 10, 32])
@pytest.mark.parametrize("count", [0, 1, 31, 33, 700])
def test_equal_to_the_definition(rng: np.random.Generator, width: int, count: int) -> None:
    """Padding to fours, blocks of 32 that are not full, pixels in any order and repeated."""
    weights = random_weights(rng, width)
    for height, across in ((41, 58), (1, 1), (2, 77), (35, 1)):
        grid = grid_of(height, across, weights)
        features = rng.standard_normal((-(-height // 2), -(-across // 2), width)).astype(np.float32)
        pixels = rng.integers(0, height * across, count)
        expected = decoded(reference, features, (0, 0), grid, pixels, weights)
        assert ((expected > 0) & (expected < 1)).all()
        np.testing.assert_allclose(decoded(cpu, features, (0, 0), grid, pixels, weights), expected, atol=1e-5)


@pytest.mark.parametrize("layers", [0, 1, 4])
def test_any_number_of_layers(rng: np.random.Generator, layers: int) -> None:
    weights = random_weights(rng, 6, layers)
    grid, features = grid_of(12, 9, weights), rng.standard_normal((6, 5, 6)).astype(np.float32)
    pixels = np.arange(12 * 9)
    expected = decoded(reference, features, (0, 0), grid, pixels, weights)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(decoded(cpu, features, (0, 0), grid, pixels, weights), expected, atol=1e-5)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_one_number_by_hand(module: ModuleType) -> None:
    """A picture of one pixel has one feature, read four times: relu(2 - 1 + 0.5) = 1.5, and 4 * 1.5 - 6 = 0."""
    one = np.ones((1, 1), np.float32)
    weights = DecoderWeights(
        np.zeros((1, 6), np.float32),
        np.array([-1], np.float32),
        one[None],
        np.full((1, 1), 0.5, np.float32),
        np.array([4], np.float32),
        np.float32(-6),
    )
    features = np.full((1, 1, 1), 2, np.float32)
    pixels = np.zeros(3, np.int64)
    assert decoded(module, features, (0, 0), grid_of(1, 1, weights), pixels, weights).tolist() == [0.5] * 3


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_a_window_answers_as_the_whole(rng: np.random.Generator, module: ModuleType) -> None:
    weights = random_weights(rng, 8)
    height, width = 61, 46
    grid, features = grid_of(height, width, weights), rng.standard_normal((31, 23, 8)).astype(np.float32)
    whole = decoded(module, features, (0, 0), grid, np.arange(height * width), weights)
    for _ in range(10):
        top, left = int(rng.integers(0, 50)), int(rng.integers(0, 40))
        bottom, right = int(rng.integers(top + 1, height + 1)), int(rng.integers(left + 1, width + 1))
        pixels = (np.arange(top, bottom)[:, None] * width + np.arange(left, right)).reshape(-1)
        rows = slice(int(grid.rows.cells[top, 0]), int(grid.rows.cells[bottom - 1, 1]) + 1)
        columns = slice(int(grid.columns.cells[left, 0]), int(grid.columns.cells[right - 1, 1]) + 1)
        window = np.ascontiguousarray(features[rows, columns])
        found = decoded(module, window, (rows.start, columns.start), grid, pixels, weights)
        np.testing.assert_allclose(found, whole[pixels], rtol=0, atol=1e-6)
        for origin in ((rows.start + 1, columns.start), (rows.start, columns.start + 1)):
            with pytest.raises(ValueError, match=r"pixels read features .* the window holds"):
                decoded(module, window, origin, grid, pixels, weights)
        for smaller in (window[:-1], window[:, :-1]):
            with pytest.raises(ValueError, match="the window holds"):
                decoded(module, np.ascontiguousarray(smaller), (rows.start, columns.start), grid, pixels, weights)


@pytest.mark.parametrize("module", IMPLEMENTATIONS)
def test_refuses_wrong_arguments(rng: np.random.Generator, module: ModuleType) -> None:
    weights = random_weights(rng, 4)
    grid, features = grid_of(6, 8, weights), np.zeros((3, 4, 4), np.float32)
    pixels, out = np.arange(48), np.empty(48, np.float32)
    for bad in (-1, 48):
        with pytest.raises(ValueError, match="a pixel is outside the picture of 6 x 8"):
            decoded(module, features, (0, 0), grid, np.array([5, bad]), weights)
    with pytest.raises(ValueError, match="features"):
        module.decode_pixels(features[:, :, :3].copy(), (0, 0), grid, pixels, weights, out)
    with pytest.raises(ValueError, match="features"):
        module.decode_pixels(features.astype(np.float64), (0, 0), grid, pixels, weights, out)
    with pytest.raises(ValueError, match="pixels"):
        module.decode_pixels(features, (0, 0), grid, pixels.astype(np.int32), weights, out)
    with pytest.raises(ValueError, match="out"):
        module.decode_pixels(features, (0, 0), grid, pixels, weights, out[:-1])
    bent = Grid(grid.rows, grid.columns, grid.row_terms[:, :-1].copy(), grid.column_terms)
    with pytest.raises(ValueError, match="row_terms"):
        module.decode_pixels(features, (0, 0), bent, pixels, weights, out)
    bent = Grid(grid.rows, grid.columns, grid.row_terms, grid.column_terms.astype(np.float64))
    with pytest.raises(ValueError, match="column_terms"):
        module.decode_pixels(features, (0, 0), bent, pixels, weights, out)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("placed", np.zeros((4, 5), np.float32)),
        ("placed", np.zeros((3, 6), np.float32)),
        ("bias", np.zeros(4, np.float64)),
        ("hidden", np.zeros((3, 4, 5), np.float32)),
        ("hidden_bias", np.zeros((2, 4), np.float32)),
        ("last", np.zeros(5, np.float32)),
        ("last", np.zeros((4, 1), np.float32)),
        ("last_bias", np.zeros(1, np.float32)),
        ("last_bias", np.float64(0)),
    ],
)
def test_weights_that_do_not_fit(rng: np.random.Generator, name: str, value: np.ndarray) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        DecoderWeights(**{**vars(random_weights(rng, 4)), name: value})
