"""The case `encoder`: SAM's image encoder in every engine for CPUs, and the effect of each on the final masks.

Ours is ONNX Runtime in float32. Peers: segment_anything in PyTorch, and OpenVINO on the same ONNX file in float32 and,
where the CPU has it, in bfloat16. A difference between embeddings says little, so every peer's embedding goes through
the same decoder, gates and voting, and the masks and labels that come out are compared with ours.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.cases.logits import encoder_image
from maskrt.benchmarks.cases.soss_models import Models, chosen_models
from maskrt.benchmarks.harness.assemble import assemble, measure_sizes
from maskrt.benchmarks.harness.measure import Factory, Measured
from maskrt.benchmarks.harness.registry import BenchOptions
from maskrt.benchmarks.harness.report_json import CaseReport, EqualityCounts, equality_counts
from maskrt.kernels.arrays import Floats
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.manifest import SossManifest
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.engines.loading import Sessions
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.session import Ports
from maskrt.runtime.errors import ProviderUnavailable
from maskrt.runtime.evaluation.equality import Equality, compare_segments, records
from maskrt.runtime.pipelines.soss.fusion import fuse
from maskrt.runtime.pipelines.soss.segmenter import Segmenter
from maskrt.runtime.sam.mask_decoder import open_decoder
from maskrt.runtime.sam.mask_generator import AutomaticMaskGenerator
from maskrt.runtime.types import Report, Segments

OURS, PYTORCH = "maskrt", "pytorch_eager"
PEERS = {"openvino": "openvino", "openvino_bf16": "openvino-bf16"}  # contestant -> provider
NEEDS = ("torch", "segment_anything", "onnx", "onnxscript", "safetensors", "cv2", "onnxruntime", "openvino")

Answer = tuple[Segments, NDArray[np.uint8]]  # masks, and the label of every pixel of the region


@dataclass(frozen=True)
class Work:
    """The input of every contestant. image: a .npy of the encoder's input; sam: KIND:FILE, the bundle's own weights."""

    bundle: Path
    sam: str
    image: Path
    threads: int


def run(options: BenchOptions, report: Report) -> CaseReport:
    """Measure the requested sizes; raise the errors of the case `soss`."""
    prepared = chosen_models(options, report, NEEDS)

    def contestants(models: Models, folder: Path) -> dict[str, Factory]:
        image, bundle = folder / "image.npy", open_bundle(models.bundle)
        np.save(image, encoder_image(models, bundle.expect(SossManifest).sam.image_size))
        work = Work(models.bundle, models.sam, image, options.threads or usable_cpus())
        found: dict[str, Factory] = {OURS: EngineEncoder(work, "cpu"), PYTORCH: PytorchEncoder(work)}
        encoder = bundle.model_path("encoder")
        for name, provider in PEERS.items():
            try:
                open_session(encoder, provider).close()
            except ProviderUnavailable as reason:
                report(f"left out: {reason}")
                continue
            found[name] = EngineEncoder(work, provider)
        return found

    measured = measure_sizes(prepared, options, report, contestants)
    equality, notes = {}, []
    for size, models in prepared.items():
        answers = answer_all(models, options, measured[size])
        equality[size] = compare(answers[OURS], answers[PYTORCH])
        notes.append(models.note)
        notes += agreement(size, measured[size].values, answers)
    notes.append("equality: masks and labels made of our embedding against those made of PyTorch's")
    return assemble("encoder", options, measured, equality, notes)


@dataclass(frozen=True)
class EngineEncoder:
    """encoder.onnx on a provider."""

    work: Work
    provider: str

    def __call__(self) -> Callable[[], tuple[dict[str, float], Floats]]:
        """Load the graph."""
        session = open_session(
            open_bundle(self.work.bundle).model_path("encoder"), self.provider, threads=self.work.threads
        )
        feeds = {"image": np.load(self.work.image)[None]}
        return lambda: ({}, session.run(feeds)["image_embeddings"])


@dataclass(frozen=True)
class PytorchEncoder:
    """segment_anything's preprocessing and image encoder."""

    work: Work

    def __call__(self) -> Callable[[], tuple[dict[str, float], Floats]]:
        """Load the checkpoint."""
        import torch

        from maskrt.export.bundles.sams import read_sam

        torch.set_num_threads(self.work.threads)
        sam, _ = read_sam(self.work.sam)
        pixels = torch.from_numpy(np.load(self.work.image)).permute(2, 0, 1)[None]

        @torch.inference_mode()
        def iterate() -> tuple[dict[str, float], Floats]:
            return {}, sam.image_encoder(sam.preprocess(pixels.float())).numpy()

        return iterate


def answer_all(models: Models, options: BenchOptions, measured: Measured) -> dict[str, Answer]:
    """Return the masks and labels that the rest of the pipeline makes of every contestant's embedding."""
    bundle = open_bundle(models.bundle)
    manifest = bundle.expect(SossManifest)
    spec = msgspec.structs.replace(manifest.masks, points_per_side=options.points_per_side)
    x, y, width, height = models.roi
    crop = np.ascontiguousarray(models.rgb[y : y + height, x : x + width])
    answers = {}
    with ExitStack() as stack:
        sessions = stack.enter_context(Sessions(bundle, threads=options.threads))
        decoder = open_decoder(sessions, manifest.sam)
        (probabilities,) = Segmenter(sessions.load("segmenter"), manifest.segmenter)([crop])
        for name, embedding in measured.values.items():
            segments = AutomaticMaskGenerator(_Known(embedding), decoder, manifest.sam, spec)(crop, {})
            answers[name] = segments, fuse(probabilities, segments, manifest.voting)[0]
    return answers


class _Known:
    """Stands in for an encoder's session whose answer is known."""

    def __init__(self, embedding: Floats) -> None:
        self.inputs: Ports = {"image": ("tensor(uint8)", (1, None, None, 3))}
        self.optional: Ports = {}
        self.outputs: Ports = {"image_embeddings": ("tensor(float)", embedding.shape)}
        self._embedding = embedding

    def run(
        self, feeds: Mapping[str, Any], check: Collection[str] | None = None, *, keep_on_device: Collection[str] = ()
    ) -> dict[str, Any]:
        return {"image_embeddings": self._embedding}

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

    def __enter__(self) -> "_Known":
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: there is nothing to free."""


def compare(ours: Answer, other: Answer) -> EqualityCounts:
    """Compare the masks and labels of two embeddings."""
    equality: Equality = compare_segments(ours[0], records(other[0]))
    return equality_counts(equality, int((ours[1] != other[1]).sum()))


def agreement(size: str, embeddings: Mapping[str, Floats], answers: Mapping[str, Answer]) -> list[str]:
    """Write a line per peer: how far its embedding and its masks are from ours."""
    lines = []
    for name in list(embeddings)[1:]:
        counts = compare(answers[OURS], answers[name])
        error = np.abs(embeddings[name] - embeddings[OURS]).max() / np.abs(embeddings[OURS]).max()
        lines.append(
            f"{size}, {name}: embedding off by {error:.1e} of its largest value; of {counts.masks} masks "
            f"{counts.identical_rles} identical, {counts.ties} ties, {counts.different} different; "
            f"{counts.label_pixels_different / answers[OURS][1].size:.2%} of the label's pixels"
        )
    return lines
