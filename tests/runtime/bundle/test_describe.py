"""The description of a bundle by itself."""

from pathlib import Path

import msgspec

from maskrt.benchmarks.reports.demo import BUNDLE
from maskrt.runtime.bundle.bundle import Bundle, open_bundle
from maskrt.runtime.bundle.describe import COMMON, describe, description_lines
from maskrt.runtime.bundle.manifest import Agreement, Artifact, DataFile, Parity, PrecisionSpec


def test_the_demo() -> None:
    bundle = open_bundle(BUNDLE)
    found = describe(bundle)
    assert (found.kind, found.opset, found.precisions) == ("soss", 20, {})
    assert found.note == bundle.manifest.note
    assert list(found.settings) == ["segmenter", "sam", "masks", "voting", "refiner", "refinement"]
    assert [(file.role, file.file) for file in found.files] == [
        (role, entry.file) for role, entry in bundle.manifest.models.items()
    ]
    assert all((BUNDLE / file.file).stat().st_size == file.size_bytes for file in found.files)
    assert msgspec.json.decode(msgspec.json.encode(found))["settings"]["masks"]["points_per_side"] == 40


def test_common_fields_are_those_of_every_manifest() -> None:
    written = msgspec.to_builtins(open_bundle(BUNDLE).manifest)
    assert set(COMMON) <= set(written)


def test_weights_beside_a_graph_and_precisions_are_files_too(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    entry = msgspec.structs.replace(
        bundle.manifest.models["encoder"], data=(DataFile("encoder.onnx.data", "1" * 64, 3_000_000),)
    )
    lower = PrecisionSpec(
        {"segmenter": Artifact("segmenter.fp16.onnx", "2" * 64, 7, Parity(0.5, 0.25))},
        ("encoder", "decoder"),
        {"soss": Agreement(3, 0.99, 0.98, 0.001)},
        0.97,
    )
    models = bundle.manifest.models | {"encoder": entry}
    manifest = msgspec.structs.replace(bundle.manifest, models=models, precisions={"fp16": lower})
    found = describe(Bundle(tiny_bundle, manifest))
    assert [(file.role, file.precision, file.file) for file in found.files] == [
        ("segmenter", "fp32", "segmenter.onnx"),
        ("segmenter", "fp16", "segmenter.fp16.onnx"),
        ("encoder", "fp32", "encoder.onnx"),
        ("encoder", "fp32", "encoder.onnx.data"),
        ("decoder", "fp32", "decoder.onnx"),
    ]
    lines = description_lines(found)
    assert lines[0] == "soss, written by maskrt 0.1.0, opset 17"
    assert "refiner: none" in lines
    assert "voting: target=1, vote=soft, uncovered=background" in lines
    assert "fp16: soss mean IoU 0.9900 with fp32 over the frames of its export, 0.97 asked for" in lines
    told = "segmenter in fp16: segmenter.fp16.onnx, 0.0 MB, sha256 222222222222, off by 2.5e-01 of the largest output"
    assert f"{told} at export" in lines
    assert "encoder in fp32: encoder.onnx.data, 3.0 MB, sha256 111111111111" in lines
    assert not any(line.startswith("note") for line in lines)
