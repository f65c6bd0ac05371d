"""The certificate: equal kernels pass, a wrong one is found."""

import dataclasses

import numpy as np
import pytest

from maskrt.kernels import sets
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.engines.openvino import OpenVinoSession
from maskrt.runtime.evaluation.verify import certify_soss

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
