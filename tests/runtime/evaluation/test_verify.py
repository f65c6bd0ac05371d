"""The certificate: equal kernels pass, a wrong one is found."""

import dataclasses

import msgspec
import numpy as np
import pytest
from PIL import Image

from maskrt.kernels import sets
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.manifest import PrecisionSpec
from maskrt.runtime.engines.openvino import OpenVinoSession
from maskrt.runtime.evaluation.answers import Calibration, soss_answers
from maskrt.runtime.evaluation.verify import certify_precision, certify_soss

infer = OpenVinoSession._infer


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)


def test_the_fast_kernels_pass(tiny_bundle, rgb):
    found = certify_soss(open_bundle(tiny_bundle), "picture", rgb, (10, 5, 60, 50))
    assert found.passed
    assert found.masks == found.identical_rles + found.ties > 3
    assert found.label_differences == 0


def test_another_engine_is_held_against_onnxruntime(tiny_bundle, rgb, monkeypatch):
    found = certify_soss(open_bundle(tiny_bundle), "picture", rgb, None, "openvino")
    assert found.passed

    def negative(*arguments):
        return [-value for value in infer(*arguments)]

    monkeypatch.setattr(OpenVinoSession, "_infer", negative)
    assert certify_soss(open_bundle(tiny_bundle), "picture", rgb, None, "openvino").label_differences > 0


def test_a_wrong_kernel_is_found(tiny_bundle, rgb, monkeypatch):
    def shifted(*arguments):
        counts = sets.CPU.mask_counts(*arguments)
        counts[0] += 9
        counts[-1] -= 9
        return counts

    monkeypatch.setattr(sets, "REFERENCE", dataclasses.replace(sets.REFERENCE, mask_counts=shifted))
    found = certify_soss(open_bundle(tiny_bundle), "picture", rgb, None)
    assert not found.passed
    assert found.different > 0


def test_a_lower_precision_is_verified_with_the_kernels_asked_for(tiny_bundle, rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    used = []

    def counted(*arguments):
        used.append(1)
        return sets.CPU.mask_counts(*arguments)

    kernels = dataclasses.replace(sets.CPU, mask_counts=counted)
    bundle, frames = open_bundle(tiny_bundle), Calibration(str(tmp_path / "a.png"))
    manifest = msgspec.structs.replace(bundle.manifest, precisions={"fp16": PrecisionSpec({}, (), {}, 0.9)})
    lower = dataclasses.replace(bundle, manifest=manifest, precision="fp16")  # every graph is the float32 one
    assert certify_precision(lower, soss_answers, frames).passed
    assert not used
    assert certify_precision(lower, soss_answers, frames, kernels=kernels).passed
    assert used
