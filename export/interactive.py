"""A SAM to a bundle whose mask decoder learns while it is used."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor, nn

from maskrt.export.adaptation import AXES, POINTS, Step, write_step
from maskrt.export.click_decoder import ClickDecoder, PlainClickDecoder
from maskrt.export.decoder import DECODER_INPUTS, DECODER_OUTPUTS
from maskrt.export.entries import fitness_lines, is_bundle, maskrt_version, model_entry, total_mb
from maskrt.export.folder import whole_folder
from maskrt.export.graph import OPSET, TOLERANCE, Report, compare, write_graph
from maskrt.export.sam import SamConfig
from maskrt.export.sams import read_sam, write_encoder
from maskrt.runtime.adaptation import BETAS
from maskrt.runtime.bundle import (
    MANIFEST,
    SCHEMA,
    AdaptSpec,
    Bundle,
    InteractiveManifest,
    ModelEntry,
    Parity,
    SamSpec,
    encode_manifest,
    open_bundle,
)
from maskrt.runtime.errors import ExportError
from maskrt.runtime.session import Session, open_session

STEPS = 20
RATES = (1e-6, 1e-3)
# Of |ours - PyTorch's| over |PyTorch's|, all weights as one vector, after STEPS steps at any of RATES. Adam divides by
# the gradient's size, so where a gradient is nothing but rounding, as a key's bias's is, its step is too; at large
# rates that grows. Then twice the distance of PyTorch's own float32 from its float64 is allowed.
STEP_TOLERANCE = 1e-6


def export_interactive(
    sam: str,
    out: Path,
    *,
    adapt: AdaptSpec | None = None,
    note: str = "",
    overwrite: bool = False,
    report: Report = lambda _: None,
) -> Bundle:
    """Export encoder, decoder and step, compare each with PyTorch, and put the bundle at `out`, whole or not at all.

    Args:
        sam: vit_b:FILE, vit_l:FILE, vit_h:FILE, or custom:FILE with the sizes in FILE's .json.
        adapt: how sessions learn unless they are told otherwise.
        overwrite: replace a bundle that is at `out`.
        report: called with one line per finished step.

    Returns:
        The bundle at `out`, verified.

    Raises:
        InputError: the checkpoint or the place cannot be used.
        ExportError: a graph differs from PyTorch.
    """
    with whole_folder(out, overwrite=overwrite, ours=is_bundle) as folder:
        entries, config = _write_models(sam, folder, report)
        manifest = InteractiveManifest(
            schema=SCHEMA,
            maskrt=maskrt_version(),
            precision="fp32",
            opset=OPSET,
            models=entries,
            sam=SamSpec(config.image_size, (config.low_res_size, config.low_res_size)),
            adapt=adapt or AdaptSpec(),
            note=note,
        )
        (folder / MANIFEST).write_bytes(encode_manifest(manifest))
        open_bundle(folder)
    for line in fitness_lines({entry.file: entry.tensorrt for role, entry in entries.items() if role != "step"}):
        report(line)
    report(f"{out}: {total_mb(entries):.0f} MB, verified")
    return Bundle(Path(out), manifest)


def _write_models(spec: str, folder: Path, report: Report) -> tuple[dict[str, ModelEntry], SamConfig]:
    network, config = read_sam(spec)
    network.requires_grad_(False)
    kind, _, file = spec.partition(":")
    weights = {name: value.detach().numpy().copy() for name, value in network.mask_decoder.named_parameters()}
    (folder / "weights.safetensors").write_bytes(save(weights))  # save_file leaves a file for its owner alone
    parities: dict[str, Parity | None] = {"weights": None}
    for role, write in (
        ("encoder", write_encoder),
        ("click_decoder", write_click_decoder),
        ("step", write_checked_step),
    ):
        parities[role] = write(network, config, folder / f"{role}.onnx", report)
    entries = {}
    for role, parity in parities.items():
        path = folder / ("weights.safetensors" if role == "weights" else f"{role}.onnx")
        entries[role] = model_entry(path, kind, Path(file), parity)
    return entries, config


def write_click_decoder(sam: Any, config: SamConfig, path: Path, report: Report) -> Parity:
    """Export one prompt to four masks, its weights inputs with defaults: fed as a session has learnt them.

    Raises:
        ExportError: the graph differs from PyTorch.
    """
    step = Step(sam)
    count = 3 * len(step.weights)
    names = list(step.weights)

    def case(points: int, has_mask: float) -> tuple[Tensor, ...]:
        prompt = step.example(config, points, [0], [0], seed=points)[count : count + len(DECODER_INPUTS)]
        return *prompt[:-1], torch.tensor([has_mask])

    cases = [case(1, 0.0), case(3, 1.0), case(6, 1.0)]
    plain = PlainClickDecoder(sam).eval()
    with torch.no_grad():
        expected = [[value.numpy() for value in plain(*values)] for values in cases]
    module = _WithWeights(ClickDecoder(sam).eval(), names)
    example = (*case(POINTS, 1.0), *step.weights.values())
    axes = {name: AXES[name] for name in ("point_coords", "point_labels")}
    write_graph(module, example, path, [*DECODER_INPUTS, *names], list(DECODER_OUTPUTS), axes, defaults=step.weights)
    onnx.checker.check_model(path, full_check=True)
    parity = compare(path, DECODER_INPUTS, DECODER_OUTPUTS, cases, expected)
    if not parity.max_rel <= TOLERANCE:
        raise ExportError(f"{path.name} differs from PyTorch by {parity.max_rel:.2e}, above {TOLERANCE:.0e}")
    report(f"{path.name}: differs from PyTorch by at most {parity.max_rel:.1e} of the largest output")
    return parity


def write_checked_step(sam: Any, config: SamConfig, path: Path, report: Report) -> Parity:
    """Export the step, and take 20 in a row at each of RATES beside torch.optim.Adam.

    Raises:
        ExportError: the weights differ by more than STEP_TOLERANCE and than rounding explains.
    """
    write_step(sam, config, path)
    onnx.checker.check_model(path, full_check=True)
    worst = Parity(max_abs=0.0, max_rel=0.0)
    with open_session(path, repeated=True) as session:
        for rate in RATES:
            found, own = compare_steps(sam, config, session, rate)
            report(
                f"{path.name}: {STEPS} steps at {rate:.0e} differ from torch.optim.Adam by {found.max_rel:.1e} of the "
                f"weights' norm; PyTorch's float32 from its float64 by {own:.1e}"
            )
            if not found.max_rel <= max(STEP_TOLERANCE, 2 * own):
                raise ExportError(f"{path.name} learns otherwise than PyTorch: report this with the checkpoint's kind")
            worst = Parity(max_abs=max(worst.max_abs, found.max_abs), max_rel=max(worst.max_rel, found.max_rel))
    return worst


def compare_steps(sam: Any, config: SamConfig, session: Session, rate: float) -> tuple[Parity, float]:
    """How far the weights are from PyTorch's after STEPS steps.

    PyTorch's side is segment_anything's own decoder, autograd, its own cross-entropy, and torch.optim.Adam.

    Returns:
        max_abs of any weight, max_rel: the norm of the difference over that of PyTorch's weights; and how far these
        are, likewise, from the same steps in float64.
    """
    step = Step(sam)
    learner, exact = PlainLearner(sam, rate), PlainLearner(sam, rate, torch.float64)
    values = [value.numpy() for value in step.example(config, 1, [0], [0])[: 3 * len(step.weights)]]
    rng = np.random.default_rng(0)
    for number in range(1, STEPS + 1):
        rows, columns = (rng.choice(config.image_size, count, replace=False) for count in (4, 5))
        *prompt, _, _ = step.example(config, 1 + number % 5, rows, columns, seed=number)[len(values) :]
        size, correction = rate / (1 - BETAS[0] ** number), math.sqrt(1 - BETAS[1] ** number)
        scalars = [np.array(size, np.float32), np.array(correction, np.float32)]
        feeds = dict(zip(step.inputs, [*values, *(value.numpy() for value in prompt), *scalars], strict=True))
        outputs = session.run(feeds, check=("loss", "gradient_norm"))
        values = [outputs[name] for name in step.outputs[:-2]]
        learner.step(prompt)
        exact.step([value.double() for value in prompt])
    ours, theirs, truth = _flat(values[: len(step.weights)]), _flat(learner.weights()), _flat(exact.weights())
    norm = float(np.linalg.norm(truth))
    difference = ours - theirs
    parity = Parity(max_abs=float(np.abs(difference).max()), max_rel=float(np.linalg.norm(difference)) / norm)
    return parity, float(np.linalg.norm(theirs - truth)) / norm


class PlainLearner:
    """What defines the step: PyTorch as anyone would write it."""

    def __init__(self, sam: Any, rate: float, dtype: torch.dtype = torch.float32) -> None:
        self._graph = PlainClickDecoder(copy.deepcopy(sam)).to(dtype)
        self._start = {name: value.to(dtype, copy=True) for name, value in sam.mask_decoder.named_parameters()}
        self._values = [value.clone().requires_grad_() for value in self._start.values()]
        self._rate = rate
        self._optimiser = torch.optim.Adam(self._values, lr=rate)

    def start_again(self, weights: list[Tensor]) -> None:
        """From these weights, the moments forgotten."""
        for value, earlier in zip(self._values, weights, strict=True):
            value.data.copy_(earlier)
        self._optimiser = torch.optim.Adam(self._values, lr=self._rate)

    def step(self, prompt: list[Tensor]) -> None:
        """One step on a prompt and what STEP_INPUTS names, but for step size and correction."""
        *inputs, choice, rows, columns, _, _, target = prompt
        named = {f"decoder.{name}": value for name, value in zip(self._start, self._values, strict=True)}
        with torch.enable_grad():
            masks, _ = torch.func.functional_call(self._graph, named, tuple(inputs))
            logits = rows @ masks[int(choice.argmax())] @ columns.T
            each = nn.functional.binary_cross_entropy_with_logits(logits, target.clamp(min=0), reduction="none")
            loss = sum(each[target == label].sum() / max(int((target == label).sum()), 1) for label in (1, 0))
            self._optimiser.zero_grad()
            loss.backward()
        self._optimiser.step()

    def weights(self) -> list[NDArray[Any]]:
        return [value.detach().numpy() for value in self._values]


def _flat(arrays: list[NDArray[Any]]) -> NDArray[np.float64]:
    return np.concatenate([array.ravel() for array in arrays]).astype(np.float64)


class _WithWeights(nn.Module):
    """A click decoder whose weights are arguments."""

    def __init__(self, graph: ClickDecoder, names: list[str]) -> None:
        super().__init__()
        self.graph = graph
        self._names = [f"decoder.{name}" for name in names]

    def forward(self, *values: Tensor) -> tuple[Tensor, Tensor]:
        prompt, weights = values[: len(DECODER_INPUTS)], values[len(DECODER_INPUTS) :]
        return torch.func.functional_call(self.graph, dict(zip(self._names, weights, strict=True)), prompt)
