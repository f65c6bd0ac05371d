"""An exported file exists only if it agrees with PyTorch."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

from torch import Tensor, nn

from maskrt.export.graph_tools import graph
from maskrt.runtime.bundle.manifest import Parity
from maskrt.runtime.errors import ExportError

pytestmark = pytest.mark.export


class Scale(nn.Module):
    """Returns another answer at every call after the first ones, as a graph that came out wrong would."""

    def __init__(self, drift: float = 0.0, shift: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.drift, self.calls = drift, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.weight * (1.0 + self.drift * self.calls)


def export(module: nn.Module, path: Path, lines: list[str] | None = None) -> Parity:
    case = (torch.randn(4, 3),)
    return graph.export_graph(
        module,
        case,
        path,
        inputs=("x",),
        outputs=("y",),
        dynamic={"x": {0: ("rows", 100)}},
        cases=(case, (torch.randn(9, 3),)),
        report=(lines if lines is not None else []).append,
    )


def test_writes_and_reports(tmp_path: Path) -> None:
    lines: list[str] = []
    parity = export(Scale(), tmp_path / "a.onnx", lines)
    assert parity.max_rel < 1e-6
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    assert graph.output_shape(tmp_path / "a.onnx", "y") == (None, 3)
    assert len(lines) == 1
    assert lines[0].startswith("a.onnx: differs from PyTorch by at most ")


def test_a_graph_that_differs_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"a\.onnx differs from PyTorch by"):
        export(Scale(drift=0.1), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_nan_in_the_model(tmp_path: Path) -> None:
    module = Scale()
    module.weight.data[0] = torch.nan
    with pytest.raises(ExportError, match="PyTorch model itself returns NaN"):
        export(module, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


class Untraceable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.sum().item() > 0 and len(str(x.tolist())))


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"a\.onnx could not be exported") as caught:
        export(Untraceable(), tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_weights_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The case of ViT-H, at a thousandth of its size."""
    monkeypatch.setattr(graph, "MAX_INLINE_BYTES", 1000)
    parity = export(nn.Sequential(nn.Linear(3, 500), nn.ReLU(), nn.Linear(500, 3)), tmp_path / "a.onnx")
    assert parity.max_rel < 1e-5
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.onnx", "a.onnx.data"]
    assert (tmp_path / "a.onnx.data").stat().st_size >= 500 * 3 * 4 * 2
