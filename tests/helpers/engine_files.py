"""An engine of a tiny bundle: built, run, its record changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tiny_bundle import INPUT_HW

from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.engine_build.builder import BuildSettings, EngineBuilder
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.tensorrt.store import EngineFiles, files_of

FEEDS = {"image": np.zeros((1, 3, *INPUT_HW), np.float32)}


def build(bundle: Path, role: str = "segmenter", **settings: Any) -> EngineFiles:
    """Build one engine; its files."""
    builder = EngineBuilder(open_bundle(bundle), BuildSettings(**settings))
    built = builder.build(role, lambda *_: None)
    return next(files for files in files_of(bundle / f"{role}.onnx", builder.target) if files.engine == built.engine)


def run(bundle: Path, role: str = "segmenter") -> None:
    """Open it, run it once."""
    with open_session(bundle / f"{role}.onnx", "tensorrt") as session:
        session.run(FEEDS)


def change_record(place: EngineFiles, change: Callable[[dict[str, Any]], None]) -> None:
    record = msgspec.json.decode(place.record.read_bytes())
    change(record)
    place.record.write_bytes(msgspec.json.encode(record))
