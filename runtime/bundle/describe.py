"""The description of a bundle by its manifest, without a look into its graphs."""

from typing import Any

import msgspec

from maskrt.runtime.bundle.bundle import FP32, Bundle
from maskrt.runtime.bundle.manifest import Artifact, DataFile, ModelEntry, Parity, PrecisionSpec
from maskrt.runtime.bundle.settings import as_text

# Fields of every manifest that are not settings of a pipeline.
ROI_EXPECTED = "roi_expected"
COMMON = ("kind", "schema", "maskrt", "precision", "opset", "models", "note", "precisions")


class FileDescription(msgspec.Struct, frozen=True):
    """One file of a role in a precision. parity: a float32 graph's at export, or a lower precision's; see Parity."""

    role: str
    precision: str
    file: str
    size_bytes: int
    sha256: str
    parity: Parity | None


class Description(msgspec.Struct, frozen=True):
    """A manifest, file by file. settings: section of the manifest -> its settings, as in JSON."""

    kind: str
    maskrt: str
    opset: int
    note: str
    settings: dict[str, dict[str, Any] | None]
    roi_expected: bool
    precisions: dict[str, PrecisionSpec]
    files: tuple[FileDescription, ...]


def describe(bundle: Bundle) -> Description:
    """Describe an opened bundle of any kind."""
    manifest = bundle.manifest
    plain: dict[str, Any] = msgspec.to_builtins(manifest)
    files: list[FileDescription] = []
    for role, entry in manifest.models.items():
        files += [_described(role, FP32, entry), *(_described(role, FP32, data) for data in entry.data)]
        for name, lower in manifest.precisions.items():
            files += [_described(role, name, lower.models[role])] if role in lower.models else []
    if manifest.two_stage_specs is None:  # a segmenter of one stage has no use for either
        plain = {name: section for name, section in plain.items() if name not in ("two_stage", "patch_selection")}
    return Description(
        kind=plain["kind"],
        maskrt=manifest.maskrt,
        opset=manifest.opset,
        note=manifest.note,
        settings={name: section for name, section in plain.items() if name not in COMMON and name != ROI_EXPECTED},
        roi_expected=bool(plain.get(ROI_EXPECTED)),
        precisions=manifest.precisions,
        files=tuple(files),
    )


def description_lines(description: Description) -> tuple[str, ...]:
    """Return lines for people: what the bundle is, its settings and its files."""
    lines = [f"{description.kind}, written by maskrt {description.maskrt}, opset {description.opset}"]
    lines += [f"note: {description.note}"] if description.note else []
    lines += ["made for regions of interest: use --roi or --roi-from"] if description.roi_expected else []
    for name, section in description.settings.items():
        fields = "none" if section is None else ", ".join(f"{key}={as_text(value)}" for key, value in section.items())
        lines.append(f"{name}: {fields}")
    for name, lower in description.precisions.items():
        found = ", ".join(f"{part} mean IoU {a.mean_iou:.4f}" for part, a in lower.agreement.items())
        lines.append(f"{name}: {found} with fp32 over the frames of its export, {lower.tolerance:g} asked for")
    for file in description.files:
        parity = "" if file.parity is None else f", off by {file.parity.max_rel:.1e} of the largest output at export"
        size = f"{file.size_bytes / 1e6:.1f} MB, sha256 {file.sha256[:12]}"
        lines.append(f"{file.role} in {file.precision}: {file.file}, {size}{parity}")
    return tuple(lines)


def _described(role: str, precision: str, file: ModelEntry | Artifact | DataFile) -> FileDescription:
    parity = file.error if isinstance(file, Artifact) else file.parity if isinstance(file, ModelEntry) else None
    return FileDescription(role, precision, file.file, file.size_bytes, file.sha256, parity)
