"""The demo bundles answer as they did when tests/data/golden.json was written.

On the machine that wrote it every array is the same to the bit. On another CPU, or with other versions of the libraries
that compute, the last bits of a network may differ, so there the sizes of the masks are compared. After a change that
is meant to change an answer: `python tests/test_golden.py` writes the file again.
"""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maskrt
from maskrt.benchmarks.scenes.bedside import Scene, draw_scene
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.pipelines.refine.pipeline import open_refiner

GOLDEN = Path(__file__).parent / "data" / "golden.json"
DEMO = Path(__file__).resolve().parents[1] / "export" / "demo"
SEEDS, SIZE_WH = (900100, 900101, 900102), (640, 360)
DRAWS = "opencv-python-headless"  # the library that draws the scenes
LIBRARIES = ("numpy", "numba", "onnxruntime", "pillow", DRAWS)
AREA_TOLERANCE = 0.02  # of a mask's pixels, on another machine


def sha256(array: Any) -> str:
    """Return the sha256 of an array's type, shape and values."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()


def sha256_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def result(found: maskrt.Result) -> dict[str, Any]:
    segments = found.segments
    values = [
        segments.rles,
        segments.boxes_xyxy.tolist(),
        segments.points_xy.tolist(),
        [float(value) for value in segments.pred_iou],
        [float(value) for value in segments.stability_score],
        segments.area.tolist(),
    ]
    return {
        "mask": sha256(found.mask),
        "area": int(found.mask.sum()),
        "label": sha256(found.label),
        "probability": sha256(found.probability),
        "segments": sha256_of_json(values),
        "segment_classes": sha256(found.segment_classes),
        "masks": len(segments),
    }


@cache
def scenes() -> dict[str, Scene]:
    return {str(seed): draw_scene(seed, SIZE_WH) for seed in SEEDS}


def soss(**settings: Any) -> dict[str, Any]:
    with maskrt.open_pipeline(DEMO / "bundle", settings={"points_per_side": 12, **settings}) as pipeline:
        return {seed: result(pipeline(scene.rgb, scene.roi_xywh)) for seed, scene in scenes().items()}


def two_stage() -> dict[str, Any]:
    found = {}
    with maskrt.open_pipeline(DEMO / "two_stage") as pipeline:
        for seed, scene in scenes().items():
            answer = pipeline(scene.rgb, scene.roi_xywh)
            assert answer.stages is not None
            found[seed] = {**result(answer), "windows": [list(window) for window in answer.stages.windows_xywh]}
    return found


def refine(select: str) -> dict[str, Any]:
    found = {}
    with open_refiner(with_settings(open_bundle(DEMO / "bundle"), {"select": select})) as refiner:
        for seed, scene in scenes().items():
            refined = refiner(scene.rgb, np.roll(scene.truth, 5, axis=1))
            area = int(refined.mask.sum())
            found[seed] = {"probability": sha256(refined.probability), "area": area, "mask": sha256(refined.mask)}
    return found


def interactive() -> dict[str, Any]:
    found = {}
    with maskrt.open_interactive(DEMO / "interactive", settings={"learning_rate": 1e-4}) as session:
        for seed, scene in scenes().items():
            session.set_image(scene.rgb)
            rows, columns = np.nonzero(scene.truth)
            middle = len(rows) // 2
            first = session.click(int(columns[middle]), int(rows[middle]))
            second = session.click(3, 3, positive=False)
            accepted = session.accept()
            box = session.box(100, 80, 300, 200)
            session.reset()
            found[seed] = {
                "first": sha256(first),
                "second": sha256(second),
                "accepted": sha256(accepted),
                "box": sha256(box),
                "area": int(accepted.sum()),
                "state": sha256_of_json({name: sha256(value) for name, value in session.state().items()}),
            }
    return found


ANSWERS: dict[str, Callable[[], dict[str, Any]]] = {
    "soss": soss,
    "soss guided refined": lambda: soss(prompts="guided", select="contour"),
    "two_stage": two_stage,
    "refine full": lambda: refine("full"),
    "refine adaptive": lambda: refine("adaptive"),
    "interactive": interactive,
}


def made_with() -> dict[str, str]:
    """Return what decides the last bits: the processor with its instructions, and the libraries that compute."""
    text = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = hashlib.sha256(" ".join(sorted(fields.get("flags", "").split())).encode()).hexdigest()[:16]
    return {"cpu": fields.get("model name", ""), "flags": flags, **{name: version(name) for name in LIBRARIES}}


def frames() -> dict[str, Any]:
    return {
        seed: {"rgb": sha256(scene.rgb), "truth": sha256(scene.truth), "roi_xywh": list(scene.roi_xywh)}
        for seed, scene in scenes().items()
    }


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    """The file; the tests are skipped where another version of OpenCV draws other frames than it did then."""
    stored: dict[str, Any] = json.loads(GOLDEN.read_bytes())
    if frames() != stored["frames"]:
        assert made_with()[DRAWS] != stored["made_with"][DRAWS], "the code draws other scenes than before"
        pytest.skip(f"this version of {DRAWS} draws other scenes")
    return stored


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_as_they_were(golden: dict[str, Any], name: str) -> None:
    found, expected = ANSWERS[name](), golden["outputs"][name]
    if made_with() == golden["made_with"]:
        assert found == expected
    for seed, answer in expected.items():
        assert found[seed]["area"] == pytest.approx(answer["area"], rel=AREA_TOLERANCE)


if __name__ == "__main__":
    outputs = {name: answer() for name, answer in ANSWERS.items()}
    GOLDEN.write_text(json.dumps({"made_with": made_with(), "frames": frames(), "outputs": outputs}, indent=1) + "\n")
