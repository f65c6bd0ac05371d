"""Add lower precisions to a bundle: convert its graphs, run them beside float32 on real frames, keep those that agree.

This needs the bundle alone: neither the checkpoints nor PyTorch.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from maskrt.export.bundles.entries import is_bundle, maskrt_version
from maskrt.export.bundles.folder import whole_folder
from maskrt.export.graph_tools.fp16 import convert_fp16, write_rounded
from maskrt.export.graph_tools.int8 import convert_int8, has_inner_layers
from maskrt.export.graph_tools.structure import structure_sha256
from maskrt.runtime.bundle.bundle import FP32, LOWER, MANIFEST, Bundle, open_bundle
from maskrt.runtime.bundle.manifest import SCHEMA, Artifact, Parity, PrecisionSpec, encode_manifest
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.recorder import Recorder, Run
from maskrt.runtime.errors import ExportError, InputError, NetworkError
from maskrt.runtime.evaluation.answers import Calibration, Question, agreements, summarized
from maskrt.runtime.files import sha256_of
from maskrt.runtime.kinds.commands import require_command
from maskrt.runtime.kinds.table import kind_of
from maskrt.runtime.types import Report

TOLERANCE = 0.98
PROOFS = "proofs"  # folder of graphs that a CPU verifies in place of those that it would not round
# image_side runs once a frame, and its output goes into the variances of every prompt.
FP16_KEEPS = ("image_side",)
# These take most of a frame's time. The decoder's graphs have some 7 tokens a prompt, too few for int8 to pay, and its
# scores decide which masks pass their gates; the refiner's small graphs end in the probability itself.
INT8_TAKES = ("segmenter", "segmenter_low", "segmenter_high", "low", "high", "encoder", "refiner_backbone")


def export_precisions(
    bundle: Path,
    out: Path,
    precisions: Sequence[str],
    calibration: Calibration,
    *,
    keep: Sequence[str] = (),
    tolerance: float = TOLERANCE,
    threads: int | None = None,
    overwrite: bool = False,
    report: Report = lambda _: None,
) -> Bundle:
    """Copy a bundle to `out` and add precisions, each checked against float32. A failure leaves nothing.

    Args:
        precisions: of "fp16" and "int8"; one that the bundle holds already is made again.
        calibration: frames like those in use. int8 takes its ranges from them, and every precision is verified on them.
        keep: roles whose graph stays in float32.
        tolerance: the least mean IoU, over the frames, of a final mask with that of float32.
        overwrite: replace a bundle that is at `out`.
        report: called with one line per finished step.

    Raises:
        InputError: an option, the bundle, a frame or the place cannot be used.
        ExportError: a graph cannot be converted, or a precision's agreement is below the tolerance.
    """
    opened = open_bundle(bundle)
    require_command(opened, "export precisions")
    answer = kind_of(opened).answers
    assert answer is not None  # or the command is refused
    _check_options(opened, precisions, keep)
    with whole_folder(out, overwrite=overwrite, ours=is_bundle) as folder:
        _copy_files(opened, folder, precisions)
        recorder = Recorder()
        question = Question(opened, calibration, threads, wrap_session=recorder.wrap_session)
        reference = answer(question)
        manifest = msgspec.structs.replace(opened.manifest, schema=SCHEMA, maskrt=maskrt_version())
        for precision in precisions:
            roles = [role for role in _roles(opened, precision) if role in recorder.runs and role not in keep]
            models = {role: _artifact(folder, opened, role, precision, recorder.runs[role], report) for role in roles}
            if not models:
                raise InputError(
                    f"{precision} would change no network of {bundle}: give fewer to --keep, or another precision"
                )
            rest = tuple(role for role in opened.manifest.models if role not in models)
            spec = PrecisionSpec(models, rest, {}, tolerance)
            proven = _proven(Bundle(folder, manifest), precision, spec)
            found = answer(Question(proven, calibration, threads, reference))
            spec = msgspec.structs.replace(spec, agreement=agreements(reference, found))
            report(f"{precision}: {summarized(spec.agreement)}")
            _require(precision, spec)
            manifest = msgspec.structs.replace(manifest, precisions=manifest.precisions | {precision: spec})
        shutil.rmtree(folder / PROOFS, ignore_errors=True)
        (folder / MANIFEST).write_bytes(encode_manifest(manifest))
        open_bundle(folder)
    report(f"{out}: {', '.join((FP32, *manifest.precisions))}, verified")
    return Bundle(Path(out), manifest)


def _check_options(bundle: Bundle, precisions: Sequence[str], keep: Sequence[str]) -> None:
    unknown = [precision for precision in precisions if precision not in LOWER]
    if unknown or not precisions:
        raise InputError(
            f"--precision {','.join(precisions)}: choose from {', '.join(LOWER)}; {FP32} is always in the bundle"
        )
    strange = [role for role in keep if role not in bundle.manifest.models]
    if strange:
        raise InputError(f"--keep {','.join(strange)}: {bundle.path} has only {', '.join(bundle.manifest.models)}")


def _copy_files(bundle: Bundle, folder: Path, anew: Sequence[str]) -> None:
    """Copy everything but the manifest and the precisions that are made again."""
    entries = bundle.manifest.models.values()
    names = [name for entry in entries for name in (entry.file, *(data.file for data in entry.data))]
    kept = [spec for precision, spec in bundle.manifest.precisions.items() if precision not in anew]
    names += [artifact.file for spec in kept for artifact in spec.models.values()]
    for name in names:
        shutil.copyfile(bundle.path / name, folder / name)


def _roles(bundle: Bundle, precision: str) -> list[str]:
    """Return the roles that a precision changes."""
    graphs = [role for role, entry in bundle.manifest.models.items() if entry.file.endswith(".onnx")]
    if precision == "int8":
        return [
            role
            for role in graphs
            if role in INT8_TAKES and has_inner_layers(bundle.path / bundle.manifest.models[role].file)
        ]
    return [role for role in graphs if role not in FP16_KEEPS]


def _artifact(folder: Path, bundle: Bundle, role: str, precision: str, runs: Sequence[Run], report: Report) -> Artifact:
    """Convert one graph and measure it on the recorded runs."""
    source, target = folder / bundle.manifest.models[role].file, folder / f"{role}.{precision}.onnx"
    try:
        if precision == "int8":
            convert_int8(source, target, [run.feeds for run in runs])
        else:
            convert_fp16(source, target)
            (folder / PROOFS).mkdir(exist_ok=True)
            write_rounded(target, folder / PROOFS / target.name)
    except Exception as error:  # onnx, onnx_ir and ONNX Runtime's converters have no common base class for their errors
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ExportError(
            f"{role} cannot be converted to {precision}: {first}; leave it in float32 with --keep {role}"
        ) from error
    try:
        graph_error(target, runs[:1])  # it must load and run as it is
        parity = graph_error(_proof(folder, target), runs)
    except NetworkError as reason:
        raise ExportError(
            f"{reason}; {precision} is too narrow for it: leave it in float32 with --keep {role}"
        ) from reason
    report(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB, off by {parity.max_rel:.1e} of the largest output")
    return Artifact(target.name, sha256_of(target), target.stat().st_size, parity, structure_sha256(target))


def _proof(folder: Path, target: Path) -> Path:
    """Return the file whose answer on a CPU is that of `target` on an engine that has its precision."""
    proof = folder / PROOFS / target.name
    return proof if proof.exists() else target


def _proven(bundle: Bundle, precision: str, spec: PrecisionSpec) -> Bundle:
    """Return the bundle in a precision, with the files that _proof names."""
    models = {}
    for role, artifact in spec.models.items():
        proof = _proof(bundle.path, bundle.path / artifact.file)
        models[role] = msgspec.structs.replace(
            artifact,
            file=str(proof.relative_to(bundle.path)),
            sha256=sha256_of(proof),
            size_bytes=proof.stat().st_size,
        )
    spec = msgspec.structs.replace(spec, models=models)
    manifest = msgspec.structs.replace(bundle.manifest, precisions={precision: spec})
    return Bundle(bundle.path, manifest, precision)


def graph_error(path: Path, runs: Sequence[Run]) -> Parity:
    """Return the largest difference of a graph's outputs from recorded ones.

    Raises:
        NetworkError: an output is NaN or infinite.
    """
    max_abs = max_rel = 0.0
    with open_session(path) as session:
        for run in runs:
            for name, found in session.run(run.feeds).items():
                difference = float(np.abs(found - run.outputs[name]).max(initial=0))
                scale = float(np.abs(run.outputs[name]).max(initial=0))
                max_abs = max(max_abs, difference)
                max_rel = max(max_rel, difference / scale if scale else difference)
    return Parity(max_abs=max_abs, max_rel=max_rel)


def _require(precision: str, spec: PrecisionSpec) -> None:
    """Refuse a precision whose agreement is below the tolerance."""
    part, worst = min(spec.agreement.items(), key=lambda item: item[1].mean_iou)
    if worst.mean_iou >= spec.tolerance:
        return
    errors: Mapping[str, float] = {role: artifact.error.max_rel for role, artifact in spec.models.items()}
    first = max(errors, key=errors.__getitem__)
    raise ExportError(
        f"{precision} loses too much: over {worst.frames} frames, {part}'s mean IoU with fp32 is {worst.mean_iou:.4f}, "
        f"the tolerance {spec.tolerance:g}; leave graphs in float32 (--keep {first}, which is off by "
        f"{errors[first]:.1e}), calibrate with more pictures like those in use, or lower --tolerance"
    )
