"""`maskrt inspect`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_two_stage import write_tiny_two_stage

from maskrt.benchmarks.reports.demo import BUNDLE
from maskrt.cli.options import parse_axes
from maskrt.runtime.bundle.bundle import MANIFEST
from maskrt.runtime.bundle.seal import sealed
from maskrt.runtime.errors import InputError
from maskrt.runtime.files import sha256_of

Maskrt = Callable[..., tuple[int, str, str]]
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["onnxruntime"] = None
from maskrt.cli.main import main
main(sys.argv[1:])
"""
WITHOUT_ONNX = WITHOUT_TORCH.replace('"torch"', '"onnx"')


def test_the_demo(maskrt: Maskrt, tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    code, out, err = maskrt("inspect", BUNDLE, "--json", file)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[1] == "  soss, written by maskrt 0.1.0, opset 20"
    found = json.loads(file.read_bytes())
    assert found["bundle"]["kind"] == "soss"
    assert len(found["bundle"]["files"]) == 10
    assert [graph["role"] for graph in found["graphs"]][:2] == ["segmenter", "encoder"]
    for graph in found["graphs"]:
        cost = graph["cost"]
        (row,) = (line.split() for line in lines if line.startswith(f"│ {graph['role']} "))
        assert row[3:12:2] == [
            "fp32",
            f"{cost['parameters']:,}",
            f"{cost['weight_bytes'] / 1e6:.2f}",
            f"{cost['flops'] / 1e9:.3f}",
            f"{cost['peak_bytes'] / 1e6:.2f}",
        ]
        assert (
            cost["flops"]
            == 2 * cost["multiply_adds"]
            == 2 * sum(operator["multiply_adds"] for operator in cost["operators"].values())
        )
    assert found["totals"]["fp32"]["flops"] == sum(graph["cost"]["flops"] for graph in found["graphs"])
    assert "encoder in fp32 at image 1x512x512x3: peak at Concat node_cat_1" in lines
    assert any(line.startswith("image_side in fp32: peak at ") for line in lines)
    (total,) = (line.split() for line in lines if line.startswith("│ 9 graphs "))
    assert total[10] == f"{found['totals']['fp32']['flops'] / 1e9:.3f}"
    assert "operator" not in out


def test_operators_and_sizes(maskrt: Maskrt) -> None:
    code, out, _ = maskrt("inspect", BUNDLE, "--ops", "--size", "encoder.image.1=300", "--set", "points_per_batch=16")
    assert code == 0
    assert "encoder in fp32 at image 1x300x512x3: peak at " in out
    assert "decoder in fp32 at point_coords 16x2x2, point_labels 16x2, mask_input 1x1x128x128: peak at " in out
    assert out.count("\n│ MatMul ") == 4
    assert out.count("\n│ Relu ") >= 5  # without products, and listed


def test_a_graph_without_a_cost_is_1(maskrt: Maskrt, tiny_bundle: Path) -> None:
    """Sizes that do not fit together: the node is named, the other graphs are counted."""
    code, out, err = maskrt("inspect", BUNDLE, "--size", "refiner_fusion.pixels.2=100", "--ops")
    assert (code, err) == (1, "")
    assert ", coarse 1x128x193x193: not counted: refiner_fusion.onnx: Mul " in out
    assert "its inputs do not fit together" in out
    assert "│ 8 of 9 graphs " in out
    assert "refiner_coarse in fp32:\n" in out
    assert "refiner_fusion in fp32:\n" not in out


def test_no_bundle(maskrt: Maskrt, tmp_path: Path) -> None:
    code, out, err = maskrt("inspect", tmp_path)
    assert (code, out) == (2, "")
    assert err == f"error: {tmp_path} is not a bundle: it has no bundle.json; make one with maskrt export\n"


def test_no_such_setting(maskrt: Maskrt) -> None:
    code, out, err = maskrt("inspect", BUNDLE, "--set", "colour=1")
    assert (code, out) == (2, "")
    assert "there is no setting colour" in err
    assert "  points_per_side=40: points along each side of the grid" in err


@pytest.mark.parametrize(
    ("script", "code", "told"),
    [
        (WITHOUT_TORCH, 0, ""),
        (WITHOUT_ONNX, 0, "the costs are not counted: they need onnx: pip install 'maskrt[export]'\n"),
    ],
)
def test_neither_torch_nor_an_engine_is_needed_and_without_onnx_the_bundle_is_described(
    script: str, code: int, told: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    file = tmp_path / "found.json"
    command = [sys.executable, "-c", script, "inspect", str(tiny_bundle), "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, told)
    assert done.stdout.startswith(f"{tiny_bundle}:\n  soss, written by maskrt")
    assert "  decoder in fp32: decoder.onnx, " in done.stdout
    assert ("GFLOPs" in done.stdout) is (not told)
    assert ("graphs" in json.loads(file.read_text())) is (not told)


def test_sizes_of_axes() -> None:
    assert parse_axes(["encoder.image.0=768", "a.b.c.12=1"]) == {("encoder", "image", 0): 768, ("a", "b.c", 12): 1}
    for text in ("image.0=768", "encoder.image=768", "encoder.image.0=0", "encoder.image.0=-1", "encoder.image.0"):
        with pytest.raises(InputError, match=f"--size {text}: expected GRAPH.INPUT.AXIS=N"):
            parse_axes([text])
    with pytest.raises(InputError, match=r"--size a.b.1 is given twice"):
        parse_axes(["a.b.1=2", "a.b.01=3"])


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff" * 99, "is not an ONNX file or is truncated"), (b"", "holds no graph")]
)
def test_a_bundle_that_was_made_around_a_damaged_graph(
    maskrt: Maskrt, tmp_path: Path, content: bytes, message: str
) -> None:
    bundle = write_tiny_two_stage(tmp_path / "b")
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    (bundle / "low.onnx").write_bytes(content)
    manifest["models"]["low"] |= {"size_bytes": len(content), "sha256": sha256_of(bundle / "low.onnx")}
    (bundle / MANIFEST).write_bytes(sealed(manifest))
    code, _, err = maskrt("inspect", bundle)
    assert code == 2
    assert f"low.onnx {message}" in err
