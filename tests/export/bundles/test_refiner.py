"""The exported refiner against the original's order of computation; tiles, kernels, and what it refuses."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

import cv2

from maskrt.export.bundles.crm_cascade import refine_plainly
from maskrt.export.bundles.refiner import export_refiner, read_crm
from maskrt.kernels import sets
from maskrt.runtime.bundle.bundle import MANIFEST, Bundle, open_bundle
from maskrt.runtime.bundle.manifest import RefineManifest, encode_manifest
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.bundle.specs import RefinementSpec
from maskrt.runtime.engines.loading import Sessions
from maskrt.runtime.errors import BundleError, InputError
from maskrt.runtime.files import sha256_of
from maskrt.runtime.pipelines.refine import stage as refine_turn
from maskrt.runtime.pipelines.refine.pipeline import open_refiner
from maskrt.runtime.pipelines.refine.refiner import Refiner, read_weights
from maskrt.runtime.pipelines.refine.selections import MARGIN

Scene = tuple[np.ndarray, np.ndarray]
TIE = 1e-4
DECODER = "refiner_decoder"


@pytest.fixture(scope="module")
def net(crm_spec: str) -> Any:
    return read_crm(crm_spec)


@pytest.fixture(scope="module")
def bundle(refiner_bundle: Path) -> Bundle:
    return open_bundle(refiner_bundle)


@pytest.fixture
def refine(bundle: Bundle) -> Callable[..., Any]:
    """refine(scene, select=..., tile=..., kernels=..., lazy=...) -> Refined."""
    return refine_with(bundle)


@pytest.fixture
def refine_surely(sure_refiner_bundle: Path) -> Callable[..., Any]:
    """As refine, with a network that is sure of most pixels."""
    return refine_with(open_bundle(sure_refiner_bundle))


def refine_with(bundle: Bundle) -> Callable[..., Any]:
    def call(scene: Scene, select: str = "full", tile: int = 512, limit: int | None = None, **options: Any) -> Any:
        spec = bundle.expect(RefineManifest).refiner
        with Refiner(Sessions(bundle, threads=1), spec, RefinementSpec(select, tile, limit), **options) as refiner:
            return refiner(*scene)

    return call


def scene(seed: int, height: int, width: int) -> Scene:
    """A smooth picture with noise, and a mask of blobs."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    rgb = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    rgb = np.clip(rgb + random.normal(0, 9, rgb.shape), 0, 255).astype(np.uint8)
    field = cv2.resize(random.standard_normal((5, 5)), (width, height), interpolation=cv2.INTER_CUBIC)
    return rgb, (field > 0.1).astype(np.float32)


@pytest.mark.parametrize("shape", [(90, 117), (64, 40), (33, 35), (131, 77)])
def test_equal_to_pytorch(net: Any, bundle: Bundle, refine: Callable[..., Any], shape: tuple[int, int]) -> None:
    """Sizes that no stride divides; masks are equal but for ties."""
    rgb, rough = scene(1, *shape)
    for mask in (rough, rough > 0.5, np.clip(cv2.blur(rough, (9, 9)), 0, 1)):
        expected = refine_plainly(net, bundle.expect(RefineManifest).refiner, rgb, mask.astype(np.float32))
        found = refine((rgb, mask))
        assert (found.probability.dtype, found.probability.shape) == (np.float32, shape)
        np.testing.assert_allclose(found.probability, expected, rtol=0, atol=1e-4)
        differs = found.mask != (expected > 0.5)
        assert (np.abs(expected[differs] - 0.5) < TIE).all()
        assert 0.02 < found.mask.mean() < 0.98
        assert found.decoded_fraction == 1
        assert set(found.timings_ms) == {"backbone", "fusion", "decode"}


@pytest.mark.parametrize("tile", [16, 33, 64, 100])
def test_tiles_do_not_change_the_answer(refine: Callable[..., Any], tile: int) -> None:
    """Tile 16 needs several windows of the backbone for a picture of 98 x 141 with its padding."""
    made = scene(2, 98, 141)
    whole = refine(made, tile=512).probability
    np.testing.assert_allclose(refine(made, tile=tile).probability, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("select", ["strided:3", "strided:8", "bbox", "contour", "adaptive"])
def test_tiles_do_not_change_what_is_selected(refine_surely: Callable[..., Any], select: str) -> None:
    """Tiles begin on the lattice, and see the lattice points of the next one.

    Features differ by rounding between tiles, and so may a square whose corner is just as sure as it has to be.
    """
    made = scene(3, 130, 171)
    whole = refine_surely(made, select)
    assert 0.05 < whole.decoded_fraction < 1
    for tile in (16, 33, 64):
        found = refine_surely(made, select, tile)
        away = np.abs(found.probability - whole.probability)
        assert away.max() < MARGIN
        assert (away > 1e-3).mean() < 1e-3
        assert found.decoded_fraction == pytest.approx(whole.decoded_fraction, rel=1e-3)
        if select in ("bbox", "contour"):
            assert away.max() < 1e-5
            assert found.decoded_fraction == whole.decoded_fraction


def test_windows_of_the_backbone_with_their_halo(
    refine_surely: Callable[..., Any], net: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At full scale there are many, and without the halo their seams would be seen."""
    made = scene(3, 300, 500)
    whole = refine_surely(made, tile=1024).probability
    windows: list[int] = []
    original = refine_turn.spans  # type: ignore[attr-defined]

    def spans(size: int, tile: int, halo: int = 0, step: int = 1) -> Any:
        found = list(original(size, tile, halo, step))
        if halo:
            windows.append(len(found))
        return iter(found)

    monkeypatch.setattr(refine_turn, "spans", spans)
    np.testing.assert_allclose(refine_surely(made, tile=16).probability, whole, rtol=0, atol=1e-5)
    assert max(windows) >= 4
    spec = msgspec.structs.replace(bundle.expect(RefineManifest).refiner, halo=0)
    with Refiner(Sessions(bundle, threads=1), spec, RefinementSpec(tile=16)) as wrong:
        assert np.abs(wrong(*made).probability - whole).max() > 1e-3


@pytest.mark.parametrize("select", ["full", "bbox", "contour", "strided:4", "adaptive"])
def test_kernels_are_their_definitions(refine_surely: Callable[..., Any], select: str) -> None:
    made = scene(4, 70, 85)
    fast, plain = (refine_surely(made, select, kernels=kernels) for kernels in (sets.CPU, sets.REFERENCE))
    np.testing.assert_allclose(fast.probability, plain.probability, rtol=0, atol=1e-5)
    assert fast.decoded_fraction == plain.decoded_fraction


@pytest.mark.parametrize("select", ["contour", "bbox"])
def test_lazy_leaves_the_answer_as_it_is(refine: Callable[..., Any], select: str) -> None:
    rgb, _ = scene(5, 210, 330)
    rough = np.zeros((210, 330), np.float32)
    rough[20:60, 30:80] = 1
    lazy, eager = (refine((rgb, rough), select, 64, lazy=lazy) for lazy in (True, False))
    np.testing.assert_allclose(lazy.probability, eager.probability, rtol=0, atol=1e-6)
    assert lazy.decoded_fraction == eager.decoded_fraction < 0.5
    assert (lazy.probability[150:, 200:] == 0).all()
    assert np.abs(lazy.probability - rough).max() > 0.3


@pytest.mark.parametrize("select", ["bbox", "contour", "strided:2", "strided:8", "adaptive"])
def test_selections_decode_less(refine_surely: Callable[..., Any], select: str) -> None:
    """Far from a small mask, boxes and bands leave what came in as it was."""
    rgb, _ = scene(6, 160, 200)
    rough = np.zeros((160, 200), np.float32)
    rough[70:90, 80:110] = 1
    found = refine_surely((rgb, rough), select)
    assert 0 < found.decoded_fraction < 1
    assert np.isfinite(found.probability).all()
    assert ((found.probability >= 0) & (found.probability <= 1)).all()
    assert np.abs(found.probability - rough).max() > 0.3
    if select in ("bbox", "contour"):
        assert (found.probability[:50] == 0).all()


@pytest.mark.parametrize("select", ["full", "bbox", "contour", "strided:4", "adaptive"])
def test_empty_and_full_masks(refine: Callable[..., Any], select: str) -> None:
    """Nothing comes from nothing, and without a contour there is nothing to decode near it."""
    rgb, _ = scene(7, 50, 60)
    empty = refine((rgb, np.zeros((50, 60), np.bool_)), select)
    assert (empty.probability == 0).all()
    assert empty.decoded_fraction == 0
    full = refine((rgb, np.ones((50, 60), np.bool_)), select)
    assert np.isfinite(full.probability).all()
    if select == "contour":
        assert full.mask.all()
        assert full.decoded_fraction == 0


@pytest.mark.parametrize("select", ["full", "bbox", "contour", "strided:8", "adaptive"])
@pytest.mark.parametrize("shape", [(16, 16), (5, 40), (1, 1), (1, 30), (200, 2)])
def test_tiny_pictures(refine: Callable[..., Any], select: str, shape: tuple[int, int], rng: Any) -> None:
    rgb, rough = rng.integers(0, 256, (*shape, 3), dtype=np.uint8), np.ones(shape, np.float32)
    rough[: shape[0] // 2, : shape[1] // 2] = 0
    found = refine((rgb, rough), select)
    assert found.probability.shape == shape
    assert np.isfinite(found.probability).all()
    assert 0 <= found.decoded_fraction <= 1
    again = refine((rgb, rough), select, 16, lazy=False)
    np.testing.assert_allclose(again.probability, found.probability, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rgb, rough: (rgb[:-1], rough), r"the picture is 50 x 39, its mask has shape \[40, 50\]"),
        (lambda rgb, rough: (rgb, rough[None]), r"its mask has shape \[1, 40, 50\]"),
        (lambda rgb, rough: (rgb[..., :1], rough), r"expected an RGB picture, .* got uint8 \[40, 50, 1\]"),
        (lambda rgb, rough: (rgb.astype(np.float32), rough), "expected an RGB picture, .* got float32"),
        (lambda rgb, rough: (rgb[:0], rough[:0]), "expected an RGB picture"),
        (lambda rgb, rough: (rgb, rough.astype(np.float64)), "the mask is float64: expected bool, or float32"),
        (lambda rgb, rough: (rgb, rough.astype(np.uint8)), "the mask is uint8: expected bool, or float32"),
        (lambda rgb, rough: (rgb, rough * np.float32(1.01)), r"values outside \[0, 1\], or NaN"),
        (lambda rgb, rough: (rgb, rough - np.float32(0.1)), r"values outside \[0, 1\], or NaN"),
        (lambda rgb, rough: (rgb, np.where(rough > 0, np.nan, rough)), r"values outside \[0, 1\], or NaN"),
    ],
)
def test_arrays_that_cannot_be_refined(refine: Callable[..., Any], change: Callable[..., Scene], message: str) -> None:
    rgb, rough = scene(9, 40, 50)
    with pytest.raises(InputError, match=message):
        refine(change(rgb, rough))


def test_pictures_that_are_too_large(refine: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="the picture is 16385 x 1: sides of up to 16384 can be refined"):
        refine((np.zeros((1, 16385, 3), np.uint8), np.zeros((1, 16385), np.bool_)))


def test_the_memory_limit(refine: Callable[..., Any]) -> None:
    made = scene(10, 60, 70)
    with pytest.raises(InputError, match=r"memory limit 7 MB: a picture of 134 x 124 takes \d+ MB with tiles of 64"):
        refine(made, limit=7)
    whole = refine(made).probability
    np.testing.assert_allclose(refine(made, limit=100_000).probability, whole, rtol=0, atol=0)


@pytest.mark.parametrize("select", ["off", "x", "strided", "strided:1", "full:3"])
def test_selections_that_there_are_not(bundle: Bundle, select: str) -> None:
    with pytest.raises(InputError, match="select"):
        open_refiner(with_settings(bundle, {"select": select}))


def altered(bundle: Path, folder: Path, write: Callable[[Path], None]) -> Bundle:
    """A copy whose decoder is rewritten, with a bundle.json that agrees."""
    shutil.copytree(bundle, folder)
    file = folder / f"{DECODER}.npz"
    write(file)
    manifest = open_bundle(bundle).manifest
    entry = manifest.models[DECODER]
    entry = msgspec.structs.replace(entry, sha256=sha256_of(file), size_bytes=file.stat().st_size)
    manifest = msgspec.structs.replace(manifest, models={**manifest.models, DECODER: entry})
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))
    return open_bundle(folder)


def changed_arrays(**changes: Any) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        with np.load(file) as arrays:
            kept = {**arrays, **changes}
        np.savez(file, **{name: value for name, value in kept.items() if value is not None})

    return write


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.write_bytes(b"no archive"),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-30]),
        lambda file: np.save(file.open("wb"), np.zeros(3, np.float32)),
        changed_arrays(last=None),
        changed_arrays(last=np.zeros(31, np.float32)),
        changed_arrays(bias=np.zeros(32, np.float64)),
        changed_arrays(last_bias=np.zeros(2, np.float32)),
        changed_arrays(hidden=np.array([{"code": 1}], object)),
    ],
)
def test_a_decoder_that_is_none(refiner_bundle: Path, tmp_path: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(BundleError, match=r"refiner_decoder\.npz does not hold a pixel decoder \(.*export the bundle"):
        read_weights(altered(refiner_bundle, tmp_path / "copy", write), DECODER)


def test_the_bundle(crm_spec: str, refiner_bundle: Path, tmp_path: Path) -> None:
    manifest = open_bundle(refiner_bundle).manifest
    assert isinstance(manifest, RefineManifest)
    assert (manifest.refiner.halo, manifest.refiner.padding, manifest.refinement) == (24, 32, RefinementSpec())
    assert [entry.file for entry in manifest.models.values()] == [
        "refiner_backbone.onnx",
        "refiner_coarse.onnx",
        "refiner_fusion.onnx",
        "refiner_decoder.npz",
    ]
    assert {entry.checkpoint_sha256 for entry in manifest.models.values()} == {
        sha256_of(Path(crm_spec.partition(":")[2]))
    }
    assert all(manifest.models[role].parity.max_abs < 1e-3 for role in manifest.models if role != DECODER)
    assert sorted(path.name for path in refiner_bundle.iterdir()) == sorted(
        [MANIFEST, *(entry.file for entry in manifest.models.values())]
    )
    before = (refiner_bundle / MANIFEST).read_bytes()
    with pytest.raises(InputError):
        export_refiner(crm_spec, refiner_bundle)
    with pytest.raises(InputError, match="the stride must be 2 to 64"):
        export_refiner(crm_spec, tmp_path / "new", refinement=RefinementSpec("strided:99"))
    with pytest.raises(InputError):
        export_refiner("custom:nowhere.pth", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert (refiner_bundle / MANIFEST).read_bytes() == before
