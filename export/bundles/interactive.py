"""Export a SAM to a bundle whose mask decoder learns while it is used."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.numpy import save
from torch import Tensor, nn

from maskrt.export.architectures.sam import SamConfig
from maskrt.export.bundles.entries import fitness_lines, is_bundle, maskrt_version, model_entry, total_mb
from maskrt.export.bundles.folder import whole_folder
from maskrt.export.bundles.sams import read_sam, write_encoder
from maskrt.export.bundles.step_parity import check_steps
from maskrt.export.graph_tools.graph import OPSET, TOLERANCE, compare, write_graph
from maskrt.export.graphs.adaptation import AXES, POINTS, Step, write_step
from maskrt.export.graphs.click_decoder import ClickDecoder, PlainClickDecoder
from maskrt.export.graphs.decoder import DECODER_INPUTS, DECODER_OUTPUTS
from maskrt.runtime.bundle.bundle import MANIFEST, Bundle, open_bundle
from maskrt.runtime.bundle.interactive_spec import AdaptationSpec
from maskrt.runtime.bundle.manifest import SCHEMA, InteractiveManifest, ModelEntry, Parity, encode_manifest
from maskrt.runtime.bundle.specs import SamSpec
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.errors import ExportError
from maskrt.runtime.types import Report


def export_interactive(
    sam: str,
    out: Path,
    *,
    adaptation: AdaptationSpec | None = None,
    note: str = "",
    overwrite: bool = False,
    report: Report = lambda _: None,
) -> Bundle:
    """Export encoder, decoder and step, compare each with PyTorch, and put the bundle at `out`, whole or not at all.

    Args:
        sam: vit_b:FILE, vit_l:FILE, vit_h:FILE, or custom:FILE with the sizes in FILE's .json.
        adaptation: the settings of learning that the bundle keeps; a session can override them.
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
            adaptation=adaptation or AdaptationSpec(),
            note=note,
        )
        (folder / MANIFEST).write_bytes(encode_manifest(manifest))
        open_bundle(folder)
    for line in fitness_lines({entry.file: entry.tensorrt for role, entry in entries.items() if role != "step"}):
        report(line)
    report(f"{out}: {total_mb(entries):.0f} MB, verified")
    return Bundle(Path(out), manifest)


def _write_models(spec: str, folder: Path, report: Report) -> tuple[dict[str, ModelEntry], SamConfig]:
    network, config = read_sam(spec, report)
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
    """Export the decoder of one prompt to four masks. Its weights are inputs with defaults: a session feeds its own.

    Raises:
        ExportError: the graph differs from PyTorch.
    """
    step = Step(sam)
    count = 3 * len(step.weights)
    names = list(step.weights)
    nothing = np.zeros((1, config.low_res_size), np.float32)

    def case(points: int, has_mask: float) -> tuple[Tensor, ...]:
        prompt = step.example(config, points, nothing, nothing, seed=points)[count : count + len(DECODER_INPUTS)]
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
        raise ExportError(
            f"{path.name} differs from PyTorch by {parity.max_rel:.2e}, above {TOLERANCE:.0e}: report this with the "
            "checkpoint's kind"
        )
    report(f"{path.name}: differs from PyTorch by at most {parity.max_rel:.1e} of the largest output")
    return parity


def write_checked_step(sam: Any, config: SamConfig, path: Path, report: Report) -> Parity:
    """Export the step and compare it with torch.optim.Adam.

    Raises:
        ExportError: the step differs by more than rounding explains.
    """
    write_step(sam, config, path)
    onnx.checker.check_model(path, full_check=True)
    with open_session(path, repeated=True) as session:
        return check_steps(sam, config, session, path.name, report)


class _WithWeights(nn.Module):
    """A click decoder whose weights are arguments."""

    def __init__(self, graph: ClickDecoder, names: list[str]) -> None:
        super().__init__()
        self.graph = graph
        self._names = [f"decoder.{name}" for name in names]

    def forward(self, *values: Tensor) -> tuple[Tensor, Tensor]:
        prompt, weights = values[: len(DECODER_INPUTS)], values[len(DECODER_INPUTS) :]
        named = dict(zip(self._names, weights, strict=True))
        answer: tuple[Tensor, Tensor] = torch.func.functional_call(self.graph, named, prompt)
        return answer
