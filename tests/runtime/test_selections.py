"""Which pixels are decoded: every selection against a brute-force statement of it, with a decoder that is made up."""

from typing import Any

import numpy as np
import pytest

from maskrt.kernels import sets
from maskrt.kernels.morphology.reference import contour
from maskrt.kernels.selections.reference import lattice
from maskrt.runtime.errors import InputError
from maskrt.runtime.selections import Part, selection_of

Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Fake:
    """Decodes from a given answer, and remembers which pixels it was asked for, and how often."""

    def __init__(self, rough: np.ndarray, answer: np.ndarray, own: tuple[slice, slice] | None = None) -> None:
        self.rough, self.answer = rough.astype(np.float32), answer.astype(np.float32)
        self.asked = np.zeros(rough.shape, np.int64)
        own = own or (slice(0, rough.shape[0]), slice(0, rough.shape[1]))
        self.part = Part(self.rough.copy(), own, self)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        np.add.at(self.asked.reshape(-1), pixels, 1)
        return self.answer.reshape(-1)[pixels]

    @property
    def decoded(self) -> Mask:
        """The pixels asked for: none twice, and only these changed."""
        assert self.asked.max() <= 1
        decoded = self.asked == 1
        np.testing.assert_array_equal(self.part.found, np.where(decoded, self.answer, self.rough))
        assert self.part.decoded == np.count_nonzero(decoded[self.part.own])
        return decoded


def on_lattice(shape: tuple[int, int], step: int) -> Mask:
    mask = np.zeros(shape, np.bool_)
    mask[np.ix_(lattice(shape[0], step), lattice(shape[1], step))] = True
    return mask


@pytest.fixture
def pair(rng: np.random.Generator, blobs) -> tuple[np.ndarray, np.ndarray]:
    """A rough mask, and probabilities that agree with it in most places."""
    field = blobs(rng, 75, 90, 6)
    answer = 1 / (1 + np.exp(-(field + blobs(rng, 75, 90, 12) * 0.3)))
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
    assert [selection_of(name, sets.CPU).step for name in names] == [1, 1, 1, 2, 64, 8]


def test_full_decodes_its_own_pixels(pair: tuple[np.ndarray, np.ndarray], kernels: Any) -> None:
    fake = Fake(*pair, own=(slice(0, 70), slice(0, 88)))
    selection = selection_of("full", kernels)
    assert selection.limits(pair[0] > 0.5, pair[0] > 0.5, None) is None
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


def test_contour_is_a_band(kernels: Any) -> None:
    """2 % of the mean side, 16 pixels at least; the rough mask's, whatever the turn before left."""
    for side, reach in ((200, 16), (1200, 24)):
        rough = np.zeros((side, side), np.bool_)
        rough[:, : side // 2] = True
        for current in (rough, ~rough, np.zeros_like(rough)):
            limits = selection_of("contour", kernels).limits(rough, current, 0.5)
            columns = np.flatnonzero(limits.any(axis=0))
            assert (columns[0], columns[-1]) == (side // 2 - 1 - reach, side // 2 + reach)
            assert limits[:, columns].all()
    rough = np.zeros((60, 80), np.bool_)
    rough[30, 40] = True
    away = np.hypot(*(np.indices(rough.shape)[axis] - at for axis, at in ((0, 30), (1, 40))))
    band = selection_of("contour", kernels).limits(rough, rough, None)
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
    limits = selection_of("bbox", kernels).limits(rough, ~rough, 0.5)
    np.testing.assert_array_equal(limits, expected)
    nothing = np.zeros_like(rough)
    assert not selection_of("bbox", kernels).limits(nothing, rough, None).any()


@pytest.mark.parametrize("step", [2, 3, 4, 8, 64])
def test_strided_by_brute_force(pair: tuple[np.ndarray, np.ndarray], kernels: Any, step: int) -> None:
    rough, answer = pair
    fake = Fake(rough, answer)
    selection = selection_of(f"strided:{step}", kernels)
    selection.decode(fake.part, selection.limits(rough > 0.5, rough > 0.5, None))
    flipped = (rough > 0.5) != (answer > 0.5)
    height, width = rough.shape
    rows, columns = lattice(height, step), lattice(width, step)
    expected = on_lattice(rough.shape, step)
    for y, x in np.argwhere(~expected):
        ys = {rows[rows <= y].max(), rows[rows >= y].min()}
        xs = {columns[columns <= x].max(), columns[columns >= x].min()}
        expected[y, x] = any(flipped[a, b] for a in ys for b in xs)
    np.testing.assert_array_equal(fake.decoded, expected)
    assert np.count_nonzero(on_lattice(rough.shape, step)) < np.count_nonzero(expected) or step == 64


def test_strided_where_nothing_changes(pair: tuple[np.ndarray, np.ndarray], kernels: Any) -> None:
    rough = pair[0]
    fake = Fake(rough, 0.1 + 0.8 * rough)
    selection_of("strided:4", kernels).decode(fake.part, None)
    np.testing.assert_array_equal(fake.decoded, on_lattice(rough.shape, 4))


def decoded_in_parts(name: str, kernels: Any, rough: np.ndarray, answer: np.ndarray) -> tuple[np.ndarray, int]:
    """A part has one row and column more, the lattice points that its last pixels look at, and the selection's lead."""
    found, counted = np.full_like(rough, np.nan), 0
    lead = selection_of(name, kernels).lead
    for top, bottom in ((0, 32), (32, 64), (64, 75)):
        for left, right in ((0, 40), (40, 90)):
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


def adaptive_by_brute_force(rough: np.ndarray, answer: np.ndarray, limits: Mask | None) -> Mask:
    """Square by square, from the coarsest on."""
    before, after = rough > 0.5, answer > 0.5
    decoded = np.zeros(rough.shape, np.bool_)

    def visit(y0: int, x0: int, step: int) -> None:
        if y0 > max(0, rough.shape[0] - 2) or x0 > max(0, rough.shape[1] - 2):
            return
        y1, x1 = min(y0 + step, rough.shape[0] - 1), min(x0 + step, rough.shape[1] - 1)
        corners = [(y0, x0), (y0, x1), (y1, x0), (y1, x1)]
        for corner in corners:
            decoded[corner] = True
        within = before[y0 : y1 + 1, x0 : x1 + 1]
        settled = (within == before[y0, x0]).all() and all(after[c] == before[y0, x0] for c in corners)
        if step > 1 and not settled:
            half = step // 2
            for y in (y0, y0 + half):
                for x in (x0, x0 + half):
                    visit(y, x, half)

    for y in range(0, max(1, rough.shape[0] - 1), 8):
        for x in range(0, max(1, rough.shape[1] - 1), 8):
            last = y + 8 >= rough.shape[0] - 1, x + 8 >= rough.shape[1] - 1
            if limits is None or limits[y : None if last[0] else y + 8, x : None if last[1] else x + 8].any():
                visit(y, x, 8)
    return decoded


@pytest.mark.parametrize("shape", [(75, 90), (1, 1), (1, 40), (33, 2), (8, 8), (9, 9), (10, 17), (64, 65)])
def test_adaptive_by_brute_force(rng: np.random.Generator, blobs, kernels: Any, shape: tuple[int, int]) -> None:
    for noise in (0.0, 0.02):
        field = blobs(rng, *shape, 4)
        rough = ((field > 0) ^ (rng.random(shape) < noise)).astype(np.float32)
        answer = (1 / (1 + np.exp(-(field + 0.5)))).astype(np.float32)
        for limits in (None, rng.random(shape) < 0.01, np.zeros(shape, np.bool_)):
            fake = Fake(rough, answer)
            selection_of("adaptive", kernels).decode(fake.part, limits)
            np.testing.assert_array_equal(fake.decoded, adaptive_by_brute_force(rough, answer, limits))


def test_adaptive_where_nothing_changes(pair: tuple[np.ndarray, np.ndarray], kernels: Any) -> None:
    """The coarsest lattice, and within squares on the contour alone."""
    rough = pair[0]
    fake = Fake(rough, 0.1 + 0.8 * rough)
    selection_of("adaptive", kernels).decode(fake.part, None)
    coarsest = on_lattice(rough.shape, 8)
    assert fake.decoded[coarsest].all()
    edges = contour(rough > 0.5)
    for y, x in np.argwhere(fake.decoded & ~coarsest):
        top, left = max(0, y - 8), max(0, x - 8)
        assert edges[top : y + 9, left : x + 9].any()
    # Next to the contour all are decoded: the labels of two neighbours differ.
    assert fake.decoded[edges].all()
    assert fake.decoded.mean() < 0.5


def test_adaptive_looks_near_the_contour_that_a_turn_left(kernels: Any) -> None:
    selection = selection_of("adaptive", kernels)
    current = np.zeros((300, 260), np.bool_)
    current[:, :130] = True
    assert selection.limits(current, current, None) is None
    for scale, reach in ((0.125, 64), (0.25, 32), (0.5, 16), (1.0, 16)):
        limits = selection.limits(~current[:, ::-1], current, scale)
        columns = np.flatnonzero(limits.any(axis=0))
        assert (columns[0], columns[-1]) == (129 - reach, 130 + reach)
