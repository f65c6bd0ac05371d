"""Models small enough to run a whole benchmark case in seconds."""

from typing import Any

import msgspec
import numpy as np
import pytest


@pytest.fixture(scope="session")
def rgb() -> np.ndarray:
    from maskrt.benchmarks.scenes.bedside import draw_scene

    return draw_scene(3, (192, 108)).rgb


@pytest.fixture(scope="session")
def tiny_models(rgb: np.ndarray, tiny_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from maskrt.benchmarks.cases.soss_models import Models, random_models

    folder = tmp_path_factory.mktemp("models")
    (folder / "sam.json").write_bytes(msgspec.json.encode(tiny_config))
    made = random_models("custom", folder, rgb, 4, lambda _: None, "mobilenet_v2", (64, 64))
    return Models(*made, rgb, (20, 10, 150, 90), "tiny: a note")
