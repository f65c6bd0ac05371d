"""A kind of pipeline that this file alone defines: one row in the public table, and the commands know it.

`threshold` calls a pixel the class of interest where its brightness passes a level. It has one graph, which returns the
picture, so that a session takes part.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

import maskrt as api
from maskrt.export.bundles.entries import model_entry
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle.bundle import MANIFEST, Bundle
from maskrt.runtime.bundle.manifest import MANIFESTS, SCHEMA, Manifest, encode_manifest
from maskrt.runtime.engines.axes import EVERY
from maskrt.runtime.engines.loading import Sessions, WrapSession, as_loaded
from maskrt.runtime.evaluation.compare import Comparison
from maskrt.runtime.evaluation.figures import row
from maskrt.runtime.evaluation.scoring import Evaluation
from maskrt.runtime.kinds.commands import COMMANDS
from maskrt.runtime.kinds.table import KINDS
from maskrt.runtime.pipelines.base import FramePipeline, Outcomes, View
from maskrt.runtime.region import in_frame
from maskrt.runtime.types import Frame, Result, Roi, Segments

Maskrt = Callable[..., tuple[int, str, str]]


class LevelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How bright a pixel has to be."""

    level: Annotated[int, msgspec.Meta(ge=0, le=255, description="brightness above which a pixel counts")] = 128


class ThresholdManifest(Manifest, frozen=True, forbid_unknown_fields=True, tag="threshold", kw_only=True):
    """bundle.json of such a bundle."""

    holds: ClassVar[str] = "a brightness threshold"
    used_with: ClassVar[str] = "maskrt run"

    threshold: LevelSpec = LevelSpec()

    @property
    def sections(self) -> tuple[str, ...]:
        return ("threshold",)

    @property
    def classes(self) -> tuple[str, ...]:
        return "dark", "bright"


class ThresholdPipeline(FramePipeline):
    """Frame in, bright pixels out."""

    def __init__(
        self,
        bundle: Bundle,
        provider: str,
        threads: int | None,
        kernels: KernelSet,
        *,
        wrap_session: WrapSession = as_loaded,
    ) -> None:
        self.level = bundle.expect(ThresholdManifest).threshold.level
        self._sessions = Sessions(bundle, provider, threads, wrap_session)
        with self._sessions.loading() as sessions:
            self._grey = sessions.load("grey", inputs={"grey"}, outputs={"same"})

    def _segment(self, views: Sequence[View]) -> Outcomes:
        return [self._result(view) for view in views]

    def _result(self, view: View) -> Result:
        grey = np.asarray(Image.fromarray(view.rgb).convert("L"), np.float32)
        same = self._grey.run({"grey": grey})["same"]
        mask = in_frame(same > self.level, view.roi_xywh, view.size_hw)
        return Result(
            mask=mask,
            label=mask.astype(np.uint8),
            probability=in_frame(same / np.float32(255), view.roi_xywh, view.size_hw),
            roi_xywh=view.roi_xywh,
            segments=Segments.none(view.size_hw),
            segment_classes=np.zeros(0, np.int64),
        )

    def close(self) -> None:
        self._sessions.close()


def compare(
    pipeline: ThresholdPipeline, rgb: NDArray[np.uint8], truth: NDArray[np.bool_], roi: Roi | None
) -> Comparison:
    return Comparison(rgb, truth, {"threshold": pipeline(Frame(rgb), roi).mask})


def picture(compared: Comparison) -> NDArray[np.uint8]:
    return row((compared.rgb,), ("input",))


@pytest.fixture
def kind() -> Iterator[api.PipelineKind]:
    """The kind, registered for the time of a test."""
    row_of_table = api.PipelineKind(
        ThresholdManifest,
        open=ThresholdPipeline,
        sizes={"grey": lambda bundle: {EVERY: {0: (1, 64, 64), 1: (1, 64, 64)}}},
        evaluate=Evaluation(("threshold",), compare, picture),
    )
    api.register_kind(row_of_table)
    yield row_of_table
    del KINDS["threshold"], MANIFESTS["threshold"]


@pytest.fixture
def bundle(kind: api.PipelineKind, tmp_path: Path) -> Path:
    """A bundle of that kind."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["height", "width"]) for name in ("grey", "same")]
    graph = helper.make_graph([helper.make_node("Identity", ["grey"], ["same"])], "grey", ports[:1], ports[1:])
    file = folder / "grey.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    manifest = ThresholdManifest(
        schema=SCHEMA,
        maskrt="test",
        precision="fp32",
        opset=17,
        models={"grey": model_entry(file, "none", file, None)},
    )
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))
    return folder


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """A picture with a bright block, and its truth."""
    for name in ("images", "truth"):
        (tmp_path / name).mkdir()
    grey = np.full((40, 60), 50, np.uint8)
    grey[10:20, 20:40] = 200
    Image.fromarray(grey).save(tmp_path / "images" / "bed.png")
    Image.fromarray((grey > 100).astype(np.uint8) * 255).save(tmp_path / "truth" / "bed.png")
    return tmp_path


def test_it_runs(maskrt: Maskrt, bundle: Path, ward: Path) -> None:
    code, out, err = maskrt("run", bundle, ward / "images", "--out", ward / "out")
    assert (code, err) == (0, ""), out
    truth, mask = (np.asarray(Image.open(ward / part / "bed.png")) for part in ("truth", "out/mask"))
    assert np.array_equal(mask, truth)
    with api.open_pipeline(bundle, settings={"level": 210}) as pipeline:
        assert not pipeline(np.full((4, 5, 3), 200, np.uint8)).mask.any()


def test_a_setting_that_it_does_not_have(maskrt: Maskrt, bundle: Path, ward: Path) -> None:
    code, out, err = maskrt("run", bundle, ward / "images", "--out", ward / "out", "--set", "colour=1")
    assert (code, out) == (2, "")
    assert "there is no setting colour" in err
    assert "  level=128: brightness above which a pixel counts" in err


def test_it_is_scored(maskrt: Maskrt, bundle: Path, ward: Path) -> None:
    scores = ward / "scores.json"
    code, _, err = maskrt("eval", bundle, ward / "images", "--truth", ward / "truth", "--json", scores)
    assert code == 0, err
    assert json.loads(scores.read_bytes())["pooled"]["threshold"]["iou"] == 1


def test_it_is_inspected_and_examined(maskrt: Maskrt, bundle: Path) -> None:
    code, out, err = maskrt("inspect", bundle)
    assert code == 0, err
    assert "threshold, written by maskrt test" in out
    assert "threshold: level=128" in out
    assert "at grey 64x64" in out
    code, out, err = maskrt("doctor", bundle)
    assert code == 0, err
    assert "of kind threshold, holds a brightness threshold" in out


REFUSED = {
    "export precisions": lambda ward: ("--precision", "fp16", "--calibrate", ward / "images", "--out", ward / "new"),
    "refine": lambda ward: (ward / "images", "--masks", ward / "truth", "--out", ward / "out"),
    "annotate": lambda ward: (ward / "images", "--out", ward / "out"),
    "serve": lambda ward: ("--port", "0", "--token", "none"),
    "eval-interactive": lambda ward: (ward / "images", "--truth", ward / "truth", "--out", ward / "out"),
    "verify --image": lambda ward: ("--image", ward / "images"),
}


@pytest.mark.parametrize("command", REFUSED)
def test_the_rest_refuses_it_politely(maskrt: Maskrt, bundle: Path, ward: Path, command: str) -> None:
    words = [word for word in command.split() if not word.startswith("--")]
    code, out, err = maskrt(*words, bundle, *REFUSED[command](ward))
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert "kind threshold" in line
    assert command in COMMANDS


def test_its_files_are_verified(maskrt: Maskrt, bundle: Path) -> None:
    code, out, err = maskrt("verify", bundle)
    assert code == 0, err
    assert "1 networks, sha256 as listed, all load on cpu" in out


def test_a_kind_is_registered_once(kind: api.PipelineKind) -> None:
    with pytest.raises(api.InputError, match="there is a kind threshold already"):
        api.register_kind(kind)


def test_without_the_row_the_bundle_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(MANIFESTS, "threshold")
    with pytest.raises(api.BundleError, match=r"kind 'threshold', this maskrt knows soss, refine, two_stage, inter"):
        api.open_pipeline(bundle)
