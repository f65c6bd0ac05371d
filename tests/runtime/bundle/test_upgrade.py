"""Bundles of schema 1 to 3 open as they are, under today's names."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
from maskrt.runtime.bundle.manifest import SCHEMA, ModelEntry
from maskrt.runtime.bundle.seal import sealed
from maskrt.runtime.errors import BundleError
from maskrt.runtime.kinds.open import open_pipeline

# Today's name -> the name up to schema 3.
SECTIONS = {
    "soss": {"refinement": "refine", "patch_selection": "selection"},
    "refine": {"refinement": "refine"},
    "two_stage": {"two_stage": "stages", "patch_selection": "selection"},
    "interactive": {"adaptation": "adapt"},
}
KINDS = pytest.mark.parametrize("kind", SECTIONS)


def older(manifest: dict[str, Any], schema: int) -> dict[str, Any]:
    """bundle.json as an older maskrt wrote it: section by section, and entry by entry."""
    names = SECTIONS[manifest["kind"]]
    new = ("roi_expected", "digest")
    found = {names.get(name, name): value for name, value in manifest.items() if name not in new}
    for entry in found["models"].values():
        entry["source"], entry["source_sha256"] = entry.pop("checkpoint"), entry.pop("checkpoint_sha256")
        if schema < 3:
            del entry["structure_sha256"]
    if "selection" in found:
        found["selection"]["undecided"] = found["selection"].pop("uncertainty")
    if schema < 2:
        del found["precisions"]
    return {**found, "schema": schema}


@pytest.fixture
def bundle(tiny_bundles: dict[str, Path], kind: str, tmp_path: Path) -> Path:
    """A copy with settings of its own, as today's schema has it."""
    folder = Path(shutil.copytree(tiny_bundles[kind], tmp_path / kind))
    manifest = json.loads((folder / MANIFEST).read_text())
    own = {
        "patch_selection": {"patch_count": None, "patch_fraction": None, "uncertainty": 0.125},
        "refinement": {"tile": 96},
        "adaptation": {"erosions": 7},
    }
    for section, settings in own.items():
        if section in manifest:
            manifest[section] |= settings
    (folder / MANIFEST).write_bytes(sealed(manifest))
    return folder


def without_structure(entry: ModelEntry) -> ModelEntry:
    return msgspec.structs.replace(entry, structure_sha256="")


@KINDS
@pytest.mark.parametrize("schema", [1, 2, 3])
def test_an_older_bundle_says_the_same(bundle: Path, kind: str, schema: int) -> None:
    assert SCHEMA == 5
    today = open_bundle(bundle).manifest
    old = older(json.loads((bundle / MANIFEST).read_text()), schema)
    assert not set(SECTIONS[kind]) & set(old) - set(SECTIONS[kind].values())
    (bundle / MANIFEST).write_text(json.dumps(old))
    found = open_bundle(bundle).manifest
    models = today.models if schema == 3 else {role: without_structure(e) for role, e in today.models.items()}
    assert found == msgspec.structs.replace(today, schema=schema, models=models)
    assert {entry.checkpoint for entry in found.models.values()} == {e.checkpoint for e in today.models.values()}


@pytest.mark.parametrize("kind", ["soss", "two_stage"])
def test_an_older_bundle_runs(bundle: Path, kind: str, blobs: Any, rng: Any) -> None:
    rgb = (blobs(rng, 60, 80)[..., None] * [1, 1, 1] > 0).astype("uint8") * 200
    answers = []
    for schema in (SCHEMA, 1):
        if schema < SCHEMA:
            (bundle / MANIFEST).write_text(json.dumps(older(json.loads((bundle / MANIFEST).read_text()), schema)))
        with open_pipeline(bundle, threads=1) as pipeline:
            answers.append(pipeline(rgb).label.tolist())
    assert answers[0] == answers[1]


@KINDS
def test_old_names_are_no_names_of_schema_4(bundle: Path, kind: str) -> None:
    old = older(json.loads((bundle / MANIFEST).read_text()), 3)
    (bundle / MANIFEST).write_bytes(sealed({**old, "schema": SCHEMA}))
    with pytest.raises(BundleError, match="export the bundle again"):
        open_bundle(bundle)


@pytest.mark.parametrize("kind", ["soss"])
def test_a_field_under_two_names_is_refused(bundle: Path) -> None:
    manifest = older(json.loads((bundle / MANIFEST).read_text()), 3)
    (bundle / MANIFEST).write_text(json.dumps(manifest | {"refinement": manifest["refine"]}))
    with pytest.raises(BundleError, match=r"bundle\.json has both refine and refinement, which are one field"):
        open_bundle(bundle)


@pytest.mark.parametrize("kind", ["two_stage"])
@pytest.mark.parametrize("schema", [0, -1])
def test_a_schema_that_never_was_is_refused(bundle: Path, schema: int) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_bytes(sealed(manifest | {"schema": schema}))
    with pytest.raises(BundleError, match=f"schema {schema}, which there never was"):
        open_bundle(bundle)
