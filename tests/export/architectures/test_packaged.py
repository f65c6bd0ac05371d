"""Segmenters that the package segmentation_models_pytorch builds: with a stand-in, and with the package where it is."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

from maskrt.export.architectures.kinds import load_architecture
from maskrt.export.architectures.packaged import PACKAGE, packaged
from maskrt.export.bundles.segmenters import writer_of
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.errors import CheckpointError, InputError
from maskrt.runtime.numeric import softmax

NAME = "segmentation_models_pytorch"
MODELS = ("Unet/resnet18", "Segformer/mit_b0", "FPN/timm-mobilenetv3_small_075")


class Unet(torch.nn.Module):  # type: ignore[name-defined,misc]
    """As the package's, with one layer each."""

    def __init__(self, encoder: str, encoder_weights: None, classes: int, activation: None) -> None:
        super().__init__()
        if encoder != "tiny":
            raise KeyError(f"Wrong encoder name `{encoder}`, supported encoders: ['tiny']")
        assert encoder_weights is None, "no weights are downloaded"
        self.encoder = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.segmentation_head = torch.nn.Sequential(torch.nn.Conv2d(4, classes, 1))

    def forward(self, image: Any) -> Any:
        """Map [B, 3, H, W] to logits."""
        if image.shape[2] < 64:
            raise RuntimeError("Wrong input shape")
        return self.segmentation_head(self.encoder(image).relu())


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, NAME, SimpleNamespace(Unet=Unet, encoders=None))  # type: ignore[arg-type]


def saved(folder: Path, classes: int) -> tuple[Unet, Path]:
    torch.manual_seed(0)
    model = Unet("tiny", None, classes, None).eval()
    torch.save({"state_dict": {f"model.{key}": value for key, value in model.state_dict().items()}}, folder / "c.pth")
    return model, folder / "c.pth"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("name", ["Unet", "unet"])
def test_a_network_of_the_package(tmp_path: Path, name: str) -> None:
    model, file = saved(tmp_path, 3)
    loaded = load_architecture(f"{PACKAGE}:{name}/tiny", file)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(image), model(image))


@pytest.mark.usefixtures("package")
def test_what_the_package_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no architecture 'Foo'; known: Unet"):
        packaged("Foo/tiny")
    with pytest.raises(InputError, match=r"Wrong encoder name `resnet0`.*give an encoder that the installed"):
        packaged("Unet/resnet0")
    torch.save({"a": torch.ones(1)}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=r"no prefix holds segmentation_head\.0\.weight"):
        load_architecture(f"{PACKAGE}:Unet/tiny", tmp_path / "c.pth")
    _, file = saved(tmp_path, 2)
    write = writer_of(f"{PACKAGE}:Unet/tiny")
    with pytest.raises(InputError, match="input size 60x64: smp:Unet/tiny needs multiples of 32"):
        write(file, tmp_path / "s.onnx", (60, 64), print)
    with pytest.raises(InputError, match="smp:Unet/tiny does not run on 32x64: Wrong input shape"):
        write(file, tmp_path / "s.onnx", (32, 64), print)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, NAME, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"needs segmentation_models_pytorch .*: install maskrt\[smp\]"):
        packaged("Unet/resnet34")


def _written(name: str, model: Any, folder: Path, classes: int) -> None:
    """Export a binary or other segmenter, and compare the probabilities of its graph with PyTorch's."""
    found_classes, parity = writer_of(f"{PACKAGE}:{name}")(folder / "c.pth", folder / "s.onnx", (64, 96), print)
    assert found_classes == max(2, classes)
    assert parity is not None
    assert parity.max_rel < 2e-5
    image = torch.randn(1, 3, 64, 96)
    with open_session(folder / "s.onnx") as session, torch.no_grad():
        found = softmax(session.run({"image": image.numpy()})["logits"][0])[-1]
        logits = model(image)
    expected = logits[0, 0].sigmoid() if classes == 1 else logits[0].softmax(0)[-1]
    assert np.abs(found - expected.numpy()).max() < 1e-5


@pytest.mark.export
@pytest.mark.usefixtures("package")
def test_one_logit_of_the_package(tmp_path: Path) -> None:
    model, _ = saved(tmp_path, 1)
    _written("Unet/tiny", model, tmp_path, 1)


@pytest.mark.export
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("classes", [1, 3])
def test_the_package_itself(tmp_path: Path, name: str, classes: int) -> None:
    try:
        package = importlib.import_module(NAME)
    except (ImportError, RuntimeError) as error:  # of torchvision, where it is not for this PyTorch
        pytest.skip(f"needs maskrt[smp]: {error}")
    architecture, encoder = name.split("/")
    model = getattr(package, architecture)(encoder, encoder_weights=None, classes=classes).eval()
    torch.save(model.state_dict(), tmp_path / "c.pth")
    _written(name, model, tmp_path, classes)
