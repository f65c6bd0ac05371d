"""The case `adaptation`: the cost of learning from a click, at the demo's size and at SAM's.

Our contestant is a click as a session takes it: the decoder's answer, then a step on four clicks. The others are its
two parts, a step on a whole mask, and PyTorch's step: segment_anything's decoder, autograd and torch.optim.Adam. Every
step starts from the same weights, so that the answers can be compared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.cases.soss_models import require
from maskrt.benchmarks.harness.assemble import assemble, measure_sizes
from maskrt.benchmarks.harness.measure import Factory, Measured
from maskrt.benchmarks.harness.registry import BenchOptions
from maskrt.benchmarks.harness.report_json import CaseReport
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.errors import InputError
from maskrt.runtime.types import Report

NEEDS = ("torch", "segment_anything", "onnx", "onnxscript", "onnxruntime")
CLICK, FORWARD, STEP, MASK_STEP, PYTORCH = "click", "forward", "step", "step_on_mask", "pytorch_step"
CLICKS, RATE = 4, 1e-6
SEED = 0


@dataclass(frozen=True)
class Work:
    """The input of every contestant. folder: graphs, sam.pt, config.json and feeds.npz; threads: of each contestant."""

    folder: Path
    threads: int


def run(options: BenchOptions, report: Report) -> CaseReport:
    """Measure at the requested sizes.

    Raises:
        ModuleNotFoundError: a module of the extras is missing.
        InputError: the size is unknown.
        WorkerError: a contestant failed.
    """
    require(NEEDS)
    configs = _configs()
    if options.size not in ("all", *configs):
        raise InputError(f"unknown size {options.size!r}; known: all, {', '.join(configs)}")
    chosen = {size: config for size, config in configs.items() if options.size in ("all", size)}

    def contestants(config: Any, folder: Path) -> dict[str, Factory]:
        _write_models(config, folder)
        report("graphs written")
        work = Work(folder, options.threads or usable_cpus())
        return {
            CLICK: Click(work),
            FORWARD: Forward(work),
            STEP: Step(work),
            MASK_STEP: Step(work, whole_mask=True),
            PYTORCH: PyTorchStep(work),
        }

    measured = measure_sizes(chosen, options, report, contestants)
    notes = [
        f"{CLICKS} clicks and a mask as prompt, random weights and embeddings; learning rate {RATE:g}",
        "forward is the decoder alone, step the step alone; A_over_forward: A's time / forward's; step_on_mask learns "
        "from a whole mask, 16:9 at the encoder's size; no image encoder runs",
    ]
    notes += [f"{size}: {_memory(each)}; {_difference(each)}" for size, each in measured.items()]
    result = assemble("adaptation", options, measured, {}, notes)
    steps = {
        f"{name}_over_forward_{size}": each.ratio(name, FORWARD)
        for size, each in measured.items()
        for name in (STEP, MASK_STEP)
    }
    return msgspec.structs.replace(result, ratios={**result.ratios, **steps})


def _configs() -> dict[str, Any]:
    """Return the sizes. The decoder's alone matter, so SAM's image encoder has a single layer."""
    from maskrt.export.architectures.sam import SAM_CONFIGS
    from maskrt.export.demo.model import DEMO_SAM

    return {"demo": DEMO_SAM, "vit_b": msgspec.structs.replace(SAM_CONFIGS["vit_b"], depth=1, global_attn_indexes=())}


def _write_models(config: Any, folder: Path) -> None:
    import torch

    from maskrt.export.architectures.sam import build_sam
    from maskrt.export.bundles.interactive import write_click_decoder
    from maskrt.export.graphs import adaptation
    from maskrt.export.graphs.decoder import DECODER_INPUTS
    from maskrt.runtime.interactive.learning import STEP_INPUTS
    from maskrt.runtime.sam.interpolation import grid_weights

    torch.manual_seed(SEED)
    sam = build_sam(config).requires_grad_(False)
    torch.save(sam.state_dict(), folder / "sam.pt")
    (folder / "config.json").write_bytes(msgspec.json.encode(config))
    write_click_decoder(sam, config, folder / "click_decoder.onnx", lambda _: None)
    adaptation.write_step(sam, config, folder / "step.onnx")
    step = adaptation.Step(sam)
    rng, side = np.random.default_rng(SEED), config.image_size
    clicks = [rng.choice(length, CLICKS, replace=False) for length in (side * 9 // 16, side)]
    grids = {"clicks": clicks, "mask": [np.arange(side * 9 // 16), np.arange(side)]}
    feeds: dict[str, Any] = {f"weight.{name}": value.numpy() for name, value in step.weights.items()}
    weights = grid_weights(config.low_res_size, side, side)
    for name, pixels in grids.items():
        rows, columns = (np.ascontiguousarray(weights[each]) for each in pixels)
        values = step.example(config, CLICKS + 1, rows, columns, SEED)[3 * len(step.weights) : -2]
        named = zip([*DECODER_INPUTS, *STEP_INPUTS[:-2]], values, strict=True)
        feeds |= {f"{name}.{key}": value.numpy() for key, value in named}
    np.savez(folder / "feeds.npz", **feeds)


@dataclass(frozen=True)
class Forward:
    """The decoder's answer; its weights are fed."""

    work: Work

    def __call__(self) -> Callable[[], tuple[dict[str, float], None]]:
        """Load."""
        answer = _forward(self.work)

        def iterate() -> tuple[dict[str, float], None]:
            answer()
            return {}, None

        return iterate


@dataclass(frozen=True)
class Step:
    """A step on clicks, or on a whole mask."""

    work: Work
    whole_mask: bool = False

    def __call__(self) -> Callable[[], tuple[dict[str, float], NDArray[np.float32]]]:
        """Load."""
        learn = _learner(self.work, "mask" if self.whole_mask else "clicks")
        return lambda: ({}, learn())


@dataclass(frozen=True)
class Click:
    """A click from which the decoder learns: its answer, then a step."""

    work: Work

    def __call__(self) -> Callable[[], tuple[dict[str, float], NDArray[np.float32]]]:
        """Load both."""
        answer, learn = _forward(self.work), _learner(self.work, "clicks")

        def iterate() -> tuple[dict[str, float], NDArray[np.float32]]:
            answer()
            return {}, learn()

        return iterate


@dataclass(frozen=True)
class PyTorchStep:
    """The same step in PyTorch."""

    work: Work

    def __call__(self) -> Callable[[], tuple[dict[str, float], NDArray[np.float32]]]:
        """Load."""
        import torch

        from maskrt.export.architectures.sam import SamConfig, build_sam
        from maskrt.export.bundles.step_parity import PlainLearner

        torch.set_num_threads(self.work.threads)
        sam = build_sam(msgspec.json.decode((self.work.folder / "config.json").read_bytes(), type=SamConfig))
        sam.load_state_dict(torch.load(self.work.folder / "sam.pt", weights_only=True))
        sam.requires_grad_(False)
        prompt = [torch.from_numpy(value) for value in _feeds(self.work, "clicks.").values()]
        learner = PlainLearner(sam, RATE)
        start = [value.copy() for value in learner.weights()]

        def iterate() -> tuple[dict[str, float], NDArray[np.float32]]:
            learner.step(prompt)
            moved = _flat(learner.weights())
            learner.start_from(start, 0)
            return {}, moved

        return iterate


def _forward(work: Work) -> Callable[[], Any]:
    from maskrt.export.graphs.decoder import DECODER_INPUTS
    from maskrt.runtime.engines.providers import open_session

    session = open_session(work.folder / "click_decoder.onnx", threads=work.threads, repeated=True)
    clicks, weights = _feeds(work, "clicks."), _feeds(work, "weight.")
    feeds = {**{name: clicks[name] for name in DECODER_INPUTS}, **weights}
    return lambda: session.run(feeds)


def _learner(work: Work, kind: str) -> Callable[[], NDArray[np.float32]]:
    """Return a function that takes a step from the same weights each time and returns the new weights as one vector."""
    from maskrt.export.graphs.decoder import DECODER_INPUTS
    from maskrt.runtime.engines.providers import open_session
    from maskrt.runtime.interactive.learning import AdamState, AdamStep, TrainingExample

    session = open_session(work.folder / "step.onnx", threads=work.threads, repeated=True)
    take, start, found = AdamStep(session), AdamState.fresh(_feeds(work, "weight.")), _feeds(work, f"{kind}.")
    prompt = {name: found[name] for name in DECODER_INPUTS}
    example = TrainingExample(prompt, int(found["choice"].argmax()), found["rows"], found["columns"], found["target"])
    return lambda: _flat(list(take(start, example, RATE).weights.values()))


def _feeds(work: Work, prefix: str) -> dict[str, NDArray[Any]]:
    with np.load(work.folder / "feeds.npz") as found:
        return {name.removeprefix(prefix): found[name] for name in found.files if name.startswith(prefix)}


def _flat(weights: list[Any]) -> NDArray[np.float32]:
    return np.concatenate([np.ravel(value) for value in weights])


def _memory(measured: Measured) -> str:
    peaks = {row.name: row.peak_rss_mb for row in measured.rows}
    return f"learning takes {peaks[CLICK] - peaks[FORWARD]:.0f} MB beyond the decoder alone (peaks of two processes)"


def _difference(measured: Measured) -> str:
    ours, theirs = measured.values[STEP].astype(np.float64), measured.values[PYTORCH]
    difference = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    return f"after a step the weights differ from PyTorch's by {difference:.1e} of their norm"
