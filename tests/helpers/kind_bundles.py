"""A bundle of each kind, made of the demo's files: what the matrix of commands and kinds is tried on."""

import shutil
from pathlib import Path

from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
from maskrt.runtime.bundle.manifest import SCHEMA, RefineManifest, SossManifest, encode_manifest

DEMO = Path(__file__).resolve().parents[2] / "export" / "demo"
FOLDERS = {"soss": DEMO / "bundle", "two_stage": DEMO / "two_stage", "interactive": DEMO / "interactive"}


def write_refine_bundle(folder: Path) -> Path:
    """Write the demo's refiner as a bundle of its own."""
    whole = open_bundle(FOLDERS["soss"])
    manifest = whole.expect(SossManifest)
    assert manifest.refiner is not None
    models = {role: entry for role, entry in manifest.models.items() if role.startswith("refiner_")}
    folder.mkdir(parents=True, exist_ok=True)
    for entry in models.values():
        shutil.copyfile(whole.path / entry.file, folder / entry.file)
    alone = RefineManifest(
        schema=SCHEMA,
        maskrt=manifest.maskrt,
        precision="fp32",
        opset=manifest.opset,
        models=models,
        refiner=manifest.refiner,
    )
    (folder / MANIFEST).write_bytes(encode_manifest(alone))
    return folder
