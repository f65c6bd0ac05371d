"""The case `adaptation`, on a SAM too small to be worth timing."""

import re

import msgspec
import pytest
from tiny_interactive import TINY

from maskrt.benchmarks.cases import adaptation_case
from maskrt.benchmarks.harness.registry import BenchOptions, run_case
from maskrt.benchmarks.harness.report_json import CaseReport
from maskrt.runtime.errors import InputError


@pytest.mark.bench
def test_every_contestant_and_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation_case, "_configs", lambda: {"demo": TINY})
    found = run_case("adaptation", BenchOptions(pairs=2, warmup=0, threads=1), lambda _: None)
    names = ("click", "forward", "step", "step_on_mask", "pytorch_step")
    assert [row.name for row in found.rows] == [f"{name} (demo)" for name in names]
    assert {"vs_pytorch_step_demo", "step_over_forward_demo", "step_on_mask_over_forward_demo"} <= set(found.ratios)
    (said,) = (note for note in found.notes if "of their norm" in note)
    assert float(re.findall(r"by ([\d.e+-]+) of", said)[0]) < 1e-7
    assert msgspec.json.decode(msgspec.json.encode(found), type=CaseReport) == found


def test_an_unknown_size_is_named() -> None:
    with pytest.raises(InputError, match="demo, vit_b"):
        run_case("adaptation", BenchOptions(size="vit_h"), lambda _: None)
