"""Which pixels are decoded: every selection against a brute-force statement of it, with a decoder that is made up."""

from typing import Any

import numpy as np
import pytest

from maskrt.kernels import sets
from maskrt.kernels.selections.reference import lattice
from maskrt.runtime.errors import InputError
from maskrt.runtime.pipelines.refine.selections import Tile, selection_of

Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Fake:
    """Decodes from a given answer, and remembers which pixels it was asked for, and how often."""

    def __init__(self, rough: np.ndarray, answer: np.ndarray, own: tuple[slice, slice] | None = None) -> None:
        self.rough, self.answer = rough.astype(np.float32), answer.astype(np.float32)
        self.asked = np.zeros(rough.shape, np.int64)
        own = own or (slice(0, rough.shape[0]), slice(0, rough.shape[1]))
        self.part = Tile(self.rough.copy(), own, self)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        np.add.at(self.asked.reshape(-1), pixels, 1)
        return self.answer.reshape(-1)[pixels]

    @property
    def decoded(self) -> Mask:
        """The pixels asked for: none twice."""
        assert self.asked.max() <= 1
        decoded = self.asked == 1
        np.testing.assert_array_equal(self.part.found[decoded], self.answer[decoded])
        assert self.part.decoded == np.count_nonzero(decoded[self.part.own])
        return decoded

    @property
    def kept(self) -> bool:
        """Whether all pixels that were not asked for are as they came in."""
        return np.array_equal(self.part.found[self.asked == 0], self.rough[self.asked == 0])


def on_lattice(shape: tuple[int, int], step: int) -> Mask:
    mask = np.zeros(shape, np.bool_)
    mask[np.ix_(lattice(shape[0], step), lattice(shape[1], step))] = True
    return mask


@pytest.fixture
def pair(rng: np.random.Generator, blobs) -> tuple[np.ndarray, np.ndarray]:
    """A rough mask, and probabilities that agree with it in most places, and are sure in many."""
    field = blobs(rng, 75, 90, 6)
    answer = 1 / (1 + np.exp(-8 * (field + blobs(rng, 75, 90, 12) * 0.3)))
    return (field > 0).astype(np.float32), answer.astype(np.float32)


@pytest.fixture(params=[sets.CPU, sets.REFERENCE], ids=["cpu", "reference"])
def kernels(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    "text", ["strided", "strided:", "strided:x", "full:3", "adaptive:8", "x", "", "Full", "off", "strided:4:4", "full "]
)
def test_names_that_there_are_not(text: str) -> None:
    with pytest.raises(InputError, match=r"expected full, bbox, contour, strided:N .* or adaptive"):
        selection_of(text, sets.CPU)


@pytest.mark.parametrize("step", [0, 1, 65, 10**9])
def test_strides_that_are_none(step: int) -> None:
    with pytest.raises(InputError, match=f"select strided:{step}: the stride must be 2 to 64"):
        selection_of(f"strided:{step}", sets.CPU)


def test_steps() -> None:
    names = ("full", "bbox", "contour", "strided:2", "strided:64", "adaptive")
    assert [selection_of(name, sets.CPU).step for name in names] == [1, 1, 1, 2, 64, 4]


def test_full_decodes_its_own_pixels(pair: tuple[np.ndarray, np.ndarray], kernels: Any) -> None:
    fake = Fake(*pair, own=(slice(0, 70), slice(0, 88)))
    selection = selection_of("full", kernels)
    assert selection.limits(pair[0] > 0.5, pair[0], None) is None
    selection.decode(fake.part, None)
    assert fake.decoded[:70, :88].all()
    assert fake.decoded.sum() == 70 * 88


def test_limits_are_kept_to(pair: tuple[np.ndarray, np.ndarray], rng: np.random.Generator, kernels: Any) -> None:
    limits = rng.random(pair[0].shape) < 0.3
    fake = Fake(*pair, own=(slice(0, 60), slice(0, 90)))
    selection_of("contour", kernels).decode(fake.part, limits)
    expected = limits.copy()
    expected[60:] = False
    np.testing.assert_array_equal(fake.decoded, expected)
    assert fake.kept


def test_contour_is_a_band(kernels: Any) -> None:
    """2 % of the mean side, 16 pixels at least; the rough mask's, whatever the turn before left."""
    for side, reach in ((200, 16), (1200, 24)):
        rough = np.zeros((side, side), np.bool_)
        rough[:, : side // 2] = True
        for current in (rough, ~rough, np.zeros_like(rough)):
            limits = selection_of("contour", kernels).limits(rough, current.astype(np.float32), 0.5)
            assert limits is not None
            columns = np.flatnonzero(limits.any(axis=0))
            assert (columns[0], columns[-1]) == (side // 2 - 1 - reach, side // 2 + reach)
            assert limits[:, columns].all()
    rough = np.zeros((60, 80), np.bool_)
    rough[30, 40] = True
    away = np.hypot(*(np.indices(rough.shape)[axis] - at for axis, at in ((0, 30), (1, 40))))
    band = selection_of("contour", kernels).limits(rough, rough.astype(np.float32), None)
    assert band is not None
    assert band[away <= 16].all()
    assert not band[away > 17].any()


def test_bbox_is_widened_boxes(kernels: Any) -> None:
    """A quarter of the side in all, 16 pixels at least on either side; 8-connected."""
    rough = np.zeros((500, 400), np.bool_)
    rough[100:300, 50:60] = True
    rough[300, 60] = True  # joined by its corner
    rough[450, 390] = True
    expected = np.zeros_like(rough)
    expected[100 - 25 : 301 + 25, 50 - 16 : 61 + 16] = True
    expected[450 - 16 : 451 + 16, 390 - 16 :] = True
    limits = selection_of("bbox", kernels).limits(rough, 1 - rough.astype(np.float32), 0.5)
    np.testing.assert_array_equal(limits, expected)
    nothing = np.zeros_like(rough)
    limits = selection_of("bbox", kernels).limits(nothing, rough.astype(np.float32), None)
    assert limits is not None
    assert not limits.any()


def sure(corners: list[float]) -> bool:
    return max(corners) <= 0.02 or min(corners) >= 0.98


@pytest.mark.parametrize("step", [2, 3, 4, 8, 64])
def test_strided_by_brute_force(pair: tuple[np.ndarray, np.ndarray], kernels: Any, step: int) -> None:
    rough, answer = pair
    fake = Fake(rough, answer)
    selection = selection_of(f"strided:{step}", kernels)
    assert selection.limits(rough > 0.5, rough, None) is None
    selection.decode(fake.part, None)
    expected, filled = on_lattice(rough.shape, step), answer.astype(np.float64)
    for y in range(75):
        for x in range(90):
            (y0, y1), (x0, x1) = around(y, 75, step), around(x, 90, step)
            corners = [float(answer[a, b]) for a in (y0, y1) for b in (x0, x1)]
            if not sure(corners):
                expected[y, x] = True
            elif not expected[y, x]:
                down, across = (y - y0) / (y1 - y0), (x - x0) / (x1 - x0)
                upper, lower = ((1 - across) * corners[k] + across * corners[k + 1] for k in (0, 2))
                filled[y, x] = (1 - down) * upper + down * lower
    np.testing.assert_array_equal(fake.decoded, expected)
    np.testing.assert_allclose(fake.part.found, filled, rtol=0, atol=1e-6)
    if step <= 8:
        assert np.count_nonzero(on_lattice(rough.shape, step)) < np.count_nonzero(expected) < rough.size


def around(place: int, size: int, step: int) -> tuple[int, int]:
    """First and last place of the square that a place of an axis belongs to."""
    first = min(place // step * step, (size - 2) // step * step)
    return first, min(first + step, size - 1)


@pytest.mark.parametrize("name", ["strided:4", "adaptive"])
def test_where_all_is_sure(pair: tuple[np.ndarray, np.ndarray], kernels: Any, name: str) -> None:
    """The coarsest lattice, and all else follows from it, whatever came in."""
    selection = selection_of(name, kernels)
    fake = Fake(pair[0], np.full_like(pair[0], 0.99))
    selection.decode(fake.part, None)
    np.testing.assert_array_equal(fake.decoded, on_lattice(pair[0].shape, selection.step))
    np.testing.assert_allclose(fake.part.found, 0.99, rtol=1e-6)


def test_a_thin_line_that_the_rough_mask_has_lost(kernels: Any) -> None:
    """A line of 3 pixels, slanted: no square of 4 has it without a corner that is unsure of it."""
    y, x = np.mgrid[:64, :96]
    away = np.abs(y - 20 - 0.3 * x)
    answer = (1 / (1 + np.exp(2 * (away - 2.5)))).astype(np.float32)
    for name in ("strided:4", "adaptive"):
        fake = Fake(np.zeros_like(answer), answer)
        selection_of(name, kernels).decode(fake.part, None)
        np.testing.assert_array_equal(fake.part.found > 0.5, answer > 0.5)
        assert fake.decoded.mean() < 0.5


def decoded_in_parts(name: str, kernels: Any, rough: np.ndarray, answer: np.ndarray) -> tuple[np.ndarray, int]:
    """A part has one row and column more, the lattice points that its last pixels look at, and the selection's lead."""
    found, counted = np.full_like(rough, np.nan), 0
    lead = selection_of(name, kernels).lead
    for top, bottom in ((0, 32), (32, 64), (64, 75)):
        for left, right in ((0, 40), (40, 80), (80, 90)):
            first = max(0, top - lead), max(0, left - lead)
            window = slice(first[0], min(bottom + 1, 75)), slice(first[1], min(right + 1, 90))
            own = slice(top - first[0], bottom - first[0]), slice(left - first[1], right - first[1])
            fake = Fake(rough[window], answer[window], own)
            selection_of(name, kernels).decode(fake.part, None)
            found[top:bottom, left:right] = fake.part.found[fake.part.own]
            counted += fake.part.decoded
    return found, counted


@pytest.mark.parametrize("name", ["full", "strided:2", "strided:4", "strided:8", "adaptive"])
def test_parts_decode_what_the_whole_does(pair: tuple[np.ndarray, np.ndarray], kernels: Any, name: str) -> None:
    whole = Fake(*pair)
    selection_of(name, kernels).decode(whole.part, None)
    found, counted = decoded_in_parts(name, kernels, *pair)
    np.testing.assert_array_equal(found, whole.part.found)
    assert counted == whole.part.decoded


def adaptive_by_brute_force(rough: np.ndarray, answer: np.ndarray, limits: Mask | None) -> tuple[Mask, np.ndarray]:
    """Square by square, a level at a time: which pixels are decoded, and what is found."""
    height, width = rough.shape
    decoded, found = np.zeros(rough.shape, np.bool_), rough.astype(np.float64)
    squares = []
    for y in range(0, max(1, height - 1), 4):
        for x in range(0, max(1, width - 1), 4):
            bottom = height if y + 4 >= height - 1 else y + 4
            right = width if x + 4 >= width - 1 else x + 4
            if limits is None or limits[y:bottom, x:right].any():
                squares.append((y, x, min(y + 4, height - 1), min(x + 4, width - 1), bottom, right))
    for step in (4, 2):
        for y0, x0, y1, x1, _, _ in squares:
            for corner in ((y0, x0), (y0, x1), (y1, x0), (y1, x1)):
                decoded[corner], found[corner] = True, answer[corner]
        divided = []
        for y0, x0, y1, x1, bottom, right in squares:
            corners = [float(found[y, x]) for y in (y0, y1) for x in (x0, x1)]
            if not sure(corners):
                divided.append((y0, x0, y1, x1, bottom, right))
                continue
            for y in range(y0, bottom):
                for x in range(x0, right):
                    if not decoded[y, x]:
                        down, across = (y - y0) / max(1, y1 - y0), (x - x0) / max(1, x1 - x0)
                        upper, lower = ((1 - across) * corners[k] + across * corners[k + 1] for k in (0, 2))
                        found[y, x] = (1 - down) * upper + down * lower
        half = step // 2
        squares = []
        for y0, x0, y1, x1, bottom, right in divided:
            for y in (y0, y0 + half):
                for x in (x0, x0 + half):
                    if y < max(1, y1) and x < max(1, x1) and y <= y1 and x <= x1:
                        y2, x2 = min(y + half, y1), min(x + half, x1)
                        squares.append((y, x, y2, x2, bottom if y2 == y1 else y2, right if x2 == x1 else x2))
    for y0, x0, _, _, bottom, right in squares:
        decoded[y0:bottom, x0:right] = True
    found[decoded] = answer[decoded]
    return decoded, found


@pytest.mark.parametrize("shape", [(75, 90), (1, 1), (1, 40), (33, 2), (8, 8), (9, 9), (10, 17), (64, 65)])
def test_adaptive_by_brute_force(rng: np.random.Generator, blobs, kernels: Any, shape: tuple[int, int]) -> None:
    for sharpness in (1.0, 8.0, 40.0):
        field = blobs(rng, *shape, 4)
        rough = (field > 0).astype(np.float32)
        answer = (1 / (1 + np.exp(-sharpness * np.clip(field + 0.1, -2, 2)))).astype(np.float32)
        for limits in (None, rng.random(shape) < 0.01, np.zeros(shape, np.bool_)):
            fake = Fake(rough, answer)
            selection_of("adaptive", kernels).decode(fake.part, limits)
            decoded, found = adaptive_by_brute_force(rough, answer, limits)
            np.testing.assert_array_equal(fake.decoded, decoded)
            np.testing.assert_allclose(fake.part.found, found, rtol=0, atol=1e-6)
            if limits is not None and not limits.any():
                assert not decoded.any()
                assert fake.kept


def test_adaptive_looks_near_what_a_turn_left_undecided(kernels: Any) -> None:
    selection = selection_of("adaptive", kernels)
    current = np.zeros((300, 260), np.float32)
    current[:, :130] = 1
    rough = ~(current[:, ::-1] > 0.5)
    assert selection.limits(rough, current, None) is None
    for scale, reach in ((0.125, 64), (0.25, 32), (0.5, 16), (1.0, 16)):
        for unsure in ((), (0.1,), (0.1, 0.3)):  # beyond the contour
            current[:, 130 : 130 + len(unsure)] = unsure
            limits = selection.limits(rough, current, scale)
            assert limits is not None
            columns = np.flatnonzero(limits.any(axis=0))
            assert (columns[0], columns[-1]) == (129 - reach, 130 + max(0, len(unsure) - 1) + reach)
        current[:, 130:] = 0
    faint = np.full((60, 60), 0.01, np.float32)
    faint[30, 30] = 0.2
    limits = selection.limits(faint > 0.5, faint, 1.0)
    assert limits is not None
    assert limits[30, 14:47].all()
    assert not limits[30, :14].any()
