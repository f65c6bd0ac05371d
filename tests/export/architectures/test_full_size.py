"""The published sizes of SAM with random weights: minutes and gigabytes, so `pytest -m slow`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs maskrt[export]")

from maskrt.export.architectures.sam import SAM_CONFIGS, build_sam
from maskrt.export.bundles.soss import export_soss
from maskrt.runtime.bundle.manifest import SossManifest

# Peak resident memory of an export of ViT-B was measured at 4.6 GB; allow several times ViT-H's 2.5 GB of weights.
SIZES = [
    pytest.param("vit_b", 0, id="vit_b"),
    pytest.param("vit_l", 0, id="vit_l"),
    pytest.param("vit_h", 1, id="vit_h"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "data_files"), SIZES)
def test_published_size(
    kind: str, data_files: int, mobilenet_file: Path, scrambled: Callable[..., Any], tmp_path: Path
) -> None:
    sam = build_sam(SAM_CONFIGS[kind])
    torch.save(scrambled(sam).state_dict(), tmp_path / "sam.pth")
    del sam
    bundle = export_soss(
        f"deeplabv3plus_mobilenet_v2:{mobilenet_file}",
        f"{kind}:{tmp_path / 'sam.pth'}",
        tmp_path / "bundle",
        report=print,
    )
    encoder = bundle.manifest.models["encoder"]
    assert len(encoder.data) == data_files
    assert encoder.parity is not None
    assert encoder.parity.max_rel < 2e-5
    assert bundle.expect(SossManifest).sam.low_res_hw == (256, 256)
