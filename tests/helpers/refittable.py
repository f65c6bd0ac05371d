"""Bundles whose decoders differ in their weights, for the tests of refitting."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx

from maskrt.export.graph_tools.structure import structure_sha256
from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
from maskrt.runtime.bundle.seal import sealed
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.engine_build.builder import BuildSettings, Built, EngineBuilder
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.files import sha256_of

Feeds = dict[str, np.ndarray]


def build(bundle: Path, older: Path | None = None, role: str = "decoder", **overrides: Any) -> Built:
    """Build one engine, from an older bundle's where there is one."""
    opened = with_settings(open_bundle(bundle), overrides)
    builder = EngineBuilder(opened, BuildSettings(), refit_from=open_bundle(older) if older else None)
    return builder.build(role, lambda *_: None)


def on_cpu(bundle: Path, feeds: Feeds) -> np.ndarray:
    with open_session(bundle / "decoder.onnx") as session:
        return session.run(feeds)["low_res_masks"]


def on_gpu(bundle: Path, feeds: Feeds) -> np.ndarray:
    with open_session(bundle / "decoder.onnx", "tensorrt") as session:
        return session.run(feeds)["low_res_masks"]


def edit(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest."""
    manifest = msgspec.json.decode((bundle / MANIFEST).read_bytes())
    change(manifest)
    (bundle / MANIFEST).write_bytes(sealed(manifest))


def other_operator(bundle: Path) -> None:
    """A decoder whose weights have the names and sizes of before, with another operator between them."""
    file = bundle / "decoder.onnx"
    model = onnx.load(file)
    next(node for node in model.graph.node if node.output[0] == "distance2").op_type = "Max"
    onnx.save(model, file)
    changed = {"sha256": sha256_of(file), "size_bytes": file.stat().st_size, "structure_sha256": structure_sha256(file)}
    edit(bundle, lambda manifest: manifest["models"]["decoder"].update(changed))


def as_of_schema_2(bundle: Path) -> None:
    def older(manifest: dict[str, Any]) -> None:
        manifest["schema"] = 2
        for entry in manifest["models"].values():
            del entry["structure_sha256"]

    edit(bundle, older)
