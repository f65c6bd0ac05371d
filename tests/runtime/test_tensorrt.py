"""The whole native path on the tiny bundle: build, run, the same masks, nothing left on the GPU."""

import shutil

import numpy as np
import pytest
from tensorrt_standin import VERSIONS, install
from tensorrt_standin.cuda import Device

from maskrt.cli.main import main
from maskrt.runtime.pipeline import open_pipeline


@pytest.fixture(params=VERSIONS)
def device(request, monkeypatch):
    device = Device()
    install(monkeypatch, request.param, device)
    yield device
    assert device.problems == []
    assert device.held == {}


def test_first(device, tiny_bundle, tmp_path, rng, capsys):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "b")
    try:
        main(["build", str(bundle), "--engine", "tensorrt", "--debug"])
    except SystemExit as e:
        assert not e.code, capsys.readouterr()
    print(capsys.readouterr().out)
    rgb = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    with open_pipeline(bundle) as a, open_pipeline(bundle, "tensorrt") as b:
        x, y = a(rgb), b(rgb)
    assert x.segments.rles == y.segments.rles
    assert (x.label == y.label).all()
