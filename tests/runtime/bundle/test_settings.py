"""Settings: every one has a meaning, and an unknown one is answered with all that there are."""

import re
from pathlib import Path

import pytest

from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.settings import setting_lines, with_settings
from maskrt.runtime.errors import BundleError
from maskrt.runtime.kinds.table import KINDS

LINE = re.compile(r"(?P<name>[a-z_0-9]+)=(?P<value>\S*): (?P<meaning>\S.{8,})")
SOME = {
    "soss": {"points_per_side", "vote", "select"},
    "refine": {"select", "tile"},
    "two_stage": {"patches", "uncertainty", "windows"},
    "interactive": {"learning_rate", "click_adaptation", "erosions"},
}


def test_every_kind_is_here() -> None:
    assert set(SOME) == set(KINDS)


@pytest.mark.parametrize("kind", SOME)
def test_every_setting_has_a_meaning(tiny_bundles: dict[str, Path], kind: str) -> None:
    manifest = open_bundle(tiny_bundles[kind]).manifest
    sections = {name: getattr(manifest, name) for name in manifest.sections}
    found = [LINE.fullmatch(line) for line in setting_lines(sections)]
    assert None not in found, setting_lines(sections)
    names = [match["name"] for match in found if match is not None]
    assert set(names) == {field for spec in sections.values() for field in spec.__struct_fields__}
    assert len(names) == len(set(names))
    assert set(names) >= SOME[kind]


@pytest.mark.parametrize("kind", SOME)
def test_an_unknown_setting_is_answered_with_all(tiny_bundles: dict[str, Path], kind: str) -> None:
    bundle = open_bundle(tiny_bundles[kind])
    with pytest.raises(BundleError) as caught:
        with_settings(bundle, {"no_such_setting": 1})
    first, lines = str(caught.value), caught.value.__notes__
    assert "there is no setting no_such_setting" in first
    assert f"of kind {kind}" in first
    sections = {name: getattr(bundle.manifest, name) for name in bundle.manifest.sections}
    assert lines == setting_lines(sections)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_hold_is_refused(tiny_bundles: dict[str, Path], value: float) -> None:
    with pytest.raises(BundleError, match=f"box_nms_thresh={value}: give a finite number"):
        with_settings(open_bundle(tiny_bundles["soss"]), {"box_nms_thresh": value})
