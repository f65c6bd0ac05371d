"""The graphs of bundles at their usual sizes, in every precision."""

import shutil
from pathlib import Path

import msgspec
import onnx
import pytest
from onnx import helper, parser

from maskrt.benchmarks.reports.demo import BUNDLE
from maskrt.export.bundles.inspection import Axis, Total, graph_reports, totals_of
from maskrt.export.graph_tools.cost import graph_cost
from maskrt.export.graph_tools.fp16 import convert_fp16
from maskrt.runtime.bundle.bundle import MANIFEST, Bundle, open_bundle
from maskrt.runtime.bundle.manifest import Artifact, Parity, PrecisionSpec, encode_manifest
from maskrt.runtime.bundle.seal import sealed
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.errors import InputError
from maskrt.runtime.files import sha256_of


@pytest.fixture
def lower(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    """A bundle with a segmenter in float16, which nobody has verified."""
    folder = tmp_path / "lower"
    shutil.copytree(tiny_bundle, folder)
    convert_fp16(folder / "segmenter.onnx", folder / "segmenter.fp16.onnx")
    file = folder / "segmenter.fp16.onnx"
    artifact = Artifact(file.name, sha256_of(file), file.stat().st_size, Parity(0.1, 0.2))
    manifest = open_bundle(folder).manifest
    precisions = {"fp16": PrecisionSpec({"segmenter": artifact}, ("encoder", "decoder"), {}, 0.9)}
    (folder / MANIFEST).write_bytes(encode_manifest(msgspec.structs.replace(manifest, precisions=precisions)))
    return open_bundle(folder)


def replaced(bundle: Path, folder: Path, role: str, model: onnx.ModelProto) -> Bundle:
    """A copy of a bundle with another graph in it."""
    shutil.copytree(bundle, folder)
    file = folder / f"{role}.onnx"
    onnx.save(model, file)
    manifest = msgspec.json.decode((bundle / MANIFEST).read_bytes())
    manifest["models"][role] |= {"sha256": sha256_of(file), "size_bytes": file.stat().st_size}
    (folder / MANIFEST).write_bytes(sealed(manifest))
    return open_bundle(folder)


def test_the_demo_at_its_usual_sizes() -> None:
    reports = graph_reports(open_bundle(BUNDLE), {})
    assert [report.role for report in reports] == [
        *("segmenter", "encoder", "decoder", "image_side", "token_side", "upscale"),
        *("refiner_backbone", "refiner_coarse", "refiner_fusion"),
    ]
    assert all(report.precision == "fp32" and report.cost is not None and not report.problem for report in reports)
    by_role = {report.role: report for report in reports}
    assert by_role["encoder"].inputs == {"image": (1, 512, 512, 3)}
    assert by_role["token_side"].inputs["point_coords"] == (4, 2, 2)
    assert by_role["token_side"].dynamic == ("point_coords", "point_labels")
    assert by_role["segmenter"].dynamic == ("image",)
    assert by_role["encoder"].cost == graph_cost(BUNDLE / "encoder.onnx", {"image": (1, 512, 512, 3)})


def test_settings_change_the_usual_sizes() -> None:
    bundle = with_settings(open_bundle(BUNDLE), {"points_per_batch": 16, "tile": 128})
    by_role = {report.role: report for report in graph_reports(bundle, {})}
    assert by_role["decoder"].inputs["point_labels"] == (16, 2)
    assert by_role["refiner_coarse"].inputs["coarse"] == (1, 64, 20, 20)


def test_a_chosen_size_goes_for_every_axis_of_its_name() -> None:
    bundle = open_bundle(BUNDLE)
    plain, chosen = (
        {report.role: report for report in graph_reports(bundle, sizes)}
        for sizes in ({}, {("decoder", "point_labels", 0): 16, ("refiner_backbone", "pixels", 3): 480})
    )
    assert chosen["decoder"].inputs["point_coords"] == (16, 2, 2)
    assert chosen["refiner_backbone"].inputs["pixels"] == (1, 4, 1440, 480)
    for role, share in (("decoder", 4), ("refiner_backbone", 3)):
        before, after = plain[role].cost, chosen[role].cost
        assert before is not None
        assert after is not None
        assert before.multiply_adds / after.multiply_adds == pytest.approx(share, rel=0.02)
    assert plain["encoder"] == chosen["encoder"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({("depth", "image", 0): 1}, "has no graph depth; it holds: segmenter, encoder, decoder"),
        (
            {("encoder", "picture", 0): 1},
            r"encoder has no axis 0 of an input picture; it has: image \[batch, height, width, 3\]",
        ),
        ({("encoder", "image", 4): 1}, "encoder has no axis 4 of an input image"),
        ({("encoder", "image", 3): 4}, "encoder: axis 3 of image is always 3"),
        (
            {("decoder", "point_coords", 0): 4, ("decoder", "point_labels", 0): 5},
            "decoder: the axes named prompts have one size, not 4 and 5",
        ),
        ({("refiner_decoder", "x", 0): 1}, "has no graph refiner_decoder"),
    ],
)
def test_axes_that_cannot_be_chosen(chosen: dict[Axis, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        graph_reports(open_bundle(BUNDLE), chosen)


def test_every_precision_with_its_own_file(lower: Bundle) -> None:
    reports = graph_reports(lower, {})
    assert [(report.role, report.precision) for report in reports] == [
        *(("segmenter", "fp32"), ("segmenter", "fp16"), ("encoder", "fp32"), ("decoder", "fp32")),
    ]
    single, half = (report.cost for report in reports[:2])
    assert single is not None
    assert half is not None
    assert half.multiply_adds == single.multiply_adds > 0
    assert half.weight_bytes < single.weight_bytes
    totals = totals_of(lower, reports)
    assert [(name, total.graphs, total.left_out) for name, total in totals.items()] == [
        ("fp32", 3, ()),
        ("fp16", 3, ()),
    ]
    costs = [report.cost for report in reports if report.precision == "fp32" and report.cost is not None]
    assert totals["fp32"] == Total(
        graphs=3,
        left_out=(),
        parameters=sum(cost.parameters for cost in costs),
        weight_bytes=sum(cost.weight_bytes for cost in costs),
        multiply_adds=sum(cost.multiply_adds for cost in costs),
        flops=sum(cost.flops for cost in costs),
        peak_bytes=max(cost.peak_bytes for cost in costs),
    )
    assert totals["fp32"].weight_bytes - totals["fp16"].weight_bytes == single.weight_bytes - half.weight_bytes


def test_a_graph_without_a_cost_is_left_out_and_says_why(tiny_bundle: Path, tmp_path: Path) -> None:
    model = parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 17]>
        g (uint8[b, h, w, 3] image) => (int64[4, n] image_embeddings) {
            floats = Cast<to = 1>(image) image_embeddings = NonZero(floats)
        }"""
    )
    bundle = replaced(tiny_bundle, tmp_path / "unknown", "encoder", model)
    reports = graph_reports(bundle, {})
    assert [report.cost is None for report in reports] == [False, True, False]
    assert reports[1].problem.startswith("encoder.onnx: NonZero image_embeddings: the size of image_embeddings follows")
    total = totals_of(bundle, reports)["fp32"]
    assert (total.graphs, total.left_out) == (2, ("encoder",))


def test_an_axis_without_a_usual_size_has_to_be_chosen(tiny_bundle: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_bundle / "segmenter.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "channels"
    bundle = replaced(tiny_bundle, tmp_path / "open", "segmenter", model)
    with pytest.raises(InputError, match=r"axis 1 of image has no fixed size: .* --size segmenter.INPUT.AXIS=N"):
        graph_reports(bundle, {})
    (report, *_) = graph_reports(bundle, {("segmenter", "image", 1): 3})
    assert report.inputs["image"] == (1, 3, 24, 32)
    assert report.cost is not None


def test_axes_without_a_name_are_chosen_one_by_one(tiny_bundle: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_bundle / "segmenter.onnx")
    shape = helper.make_tensor_value_info("image", 1, [1, 3, None, None])
    model.graph.input[0].CopyFrom(shape)
    bundle = replaced(tiny_bundle, tmp_path / "nameless", "segmenter", model)
    (report, *_) = graph_reports(bundle, {("segmenter", "image", 3): 7})
    assert report.inputs["image"] == (1, 3, 24, 7)
