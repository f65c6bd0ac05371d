"""Models small enough to run a whole benchmark case in seconds."""

from typing import Any

import msgspec
import numpy as np
import pytest


@pytest.fixture(scope="session")
def tiny_sam_config() -> Any:
    pytest.importorskip("torch", reason="needs maskrt[export]")
    from maskrt.export.sam import SamConfig

    return SamConfig(
        image_size=128,
        embed_dim=32,
        depth=2,
        heads=2,
        global_attn_indexes=(1,),
        window_size=3,
        prompt_dim=32,
        decoder_mlp_dim=64,
        decoder_heads=4,
        iou_head_dim=32,
    )


@pytest.fixture(scope="session")
def rgb() -> np.ndarray:
    from maskrt.benchmarks.scenes import draw_scene

    return draw_scene(3, (192, 108)).rgb


@pytest.fixture(scope="session")
def tiny_models(rgb: np.ndarray, tiny_sam_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from maskrt.benchmarks.soss_models import Models, random_models

    folder = tmp_path_factory.mktemp("models")
    (folder / "sam.json").write_bytes(msgspec.json.encode(tiny_sam_config))
    made = random_models("custom", folder, rgb, 4, lambda _: None, "mobilenet_v2", (64, 64))
    return Models(*made, rgb, (20, 10, 150, 90), "tiny: a note")
