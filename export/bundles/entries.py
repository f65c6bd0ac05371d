"""What every bundle says of its files, and of the program that wrote it."""

from collections.abc import Mapping
from pathlib import Path

from maskrt.export.graph_tools.fitness import findings
from maskrt.export.graph_tools.structure import structure_sha256
from maskrt.runtime.bundle.bundle import MANIFEST
from maskrt.runtime.bundle.manifest import DataFile, ModelEntry, Parity
from maskrt.runtime.files import sha256_of


def model_entry(path: Path, kind: str, checkpoint: Path, parity: Parity | None) -> ModelEntry:
    """The entry of a file, and of the weights beside it."""
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
    """What an export says of TensorRT in the end, from what was found of each file."""
    lines = [f"{file}: TensorRT would refuse: {line}" for file, findings in found.items() for line in findings]
    return tuple(lines) or ("TensorRT: nothing found in the graphs that it would refuse",)


def data_file(path: Path) -> Path:
    """Where the weights of a graph too large for one file are."""
    return path.with_name(f"{path.name}.data")


def total_mb(models: dict[str, ModelEntry]) -> float:
    """Size of a bundle's files in MB (10^6 bytes)."""
    return sum(entry.size_bytes + sum(data.size_bytes for data in entry.data) for entry in models.values()) / 1e6


def is_bundle(path: Path) -> bool:
    """Whether a folder holds a bundle, so that it may be replaced."""
    return path.is_dir() and (path / MANIFEST).is_file()


def maskrt_version() -> str:
    """Of the program."""
    from maskrt import __version__  # here, so that the root package can import this one

    return __version__
