"""Entries that every bundle has for its files and for the program that wrote it."""

from collections.abc import Mapping
from pathlib import Path

from maskrt.export.graph_tools.fitness import findings
from maskrt.export.graph_tools.structure import structure_sha256
from maskrt.runtime.bundle.bundle import MANIFEST
from maskrt.runtime.bundle.manifest import DataFile, ModelEntry, Parity
from maskrt.runtime.files import sha256_of


def model_entry(path: Path, kind: str, checkpoint: Path, parity: Parity | None) -> ModelEntry:
    """Make the entry of a file and of the weights beside it."""
    data = data_file(path)
    return ModelEntry(
        file=path.name,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        checkpoint=f"{kind}:{checkpoint.name}",  # the name only: a bundle travels, the exporting machine's paths do not
        checkpoint_sha256=sha256_of(checkpoint),
        parity=parity,
        data=(DataFile(data.name, sha256_of(data), data.stat().st_size),) if data.exists() else (),
        tensorrt=findings(path) if path.suffix == ".onnx" else (),
        structure_sha256=structure_sha256(path) if path.suffix == ".onnx" else "",
    )


def fitness_lines(found: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Write the lines about TensorRT that end an export, from the findings of each file."""
    lines = [f"{file}: TensorRT would refuse: {line}" for file, findings in found.items() for line in findings]
    return tuple(lines) or ("TensorRT: nothing found in the graphs that it would refuse",)


def data_file(path: Path) -> Path:
    """Return the file of the weights of a graph that is too large for one file."""
    return path.with_name(f"{path.name}.data")


def total_mb(models: dict[str, ModelEntry]) -> float:
    """Return the size of a bundle's files in MB (10^6 bytes)."""
    return sum(entry.size_bytes + sum(data.size_bytes for data in entry.data) for entry in models.values()) / 1e6


def is_bundle(path: Path) -> bool:
    """Return whether a folder holds a bundle, so that it may be replaced."""
    return path.is_dir() and (path / MANIFEST).is_file()


def maskrt_version() -> str:
    """Return the program's version."""
    from maskrt import __version__  # here, so that the root package can import this one

    return __version__
