"""Export one PyTorch module to one ONNX file, which is kept only if ONNX Runtime's answer agrees with PyTorch's."""

import gc
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maskrt.export.bundles.entries import data_file
from maskrt.export.graph_tools.quiet import quiet
from maskrt.runtime.bundle.manifest import Parity
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.errors import ExportError, MaskrtError
from maskrt.runtime.types import Report

OPSET = 20
TOLERANCE = 1e-4  # of max|a - b| / max|b|; float32 graphs of SAM ViT-B come out near 1e-6
# A protobuf message ends at 2 GiB; past this the weights go into NAME.onnx.data beside the graph.
MAX_INLINE_BYTES = 1_900_000_000
MAX_IMAGES = 1024  # of a batch, where the graph has a batch axis

# Axis -> its name and the largest size it can have, or an expression over torch.export.Dim.
Axes = Mapping[int, tuple[str, int] | Any]


def export_graph(
    module: nn.Module,
    example: Sequence[Tensor],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Mapping[str, Axes],
    cases: Sequence[Sequence[Tensor]],
    report: Report,
    reference: nn.Module | None = None,
    opset: int = OPSET,
) -> Parity:
    """Export a module in evaluation mode and compare the file with PyTorch on every case.

    Args:
        example: inputs to trace with; dynamic axes of different names need different sizes here.
        inputs, outputs: names in the graph, in the module's order.
        dynamic: input name -> its dynamic axes.
        cases: further inputs to compare on, of the sizes that matter.
        reference: the module that defines the answer; None is the exported one.

    Returns:
        The largest differences over all cases and outputs.

    Raises:
        ExportError: the graph cannot be made, is invalid, or differs by more than TOLERANCE; no file is left.
    """
    module.eval()
    expected = [_run_torch((reference or module).eval(), case) for case in cases]
    try:
        write_graph(module, tuple(example), path, list(inputs), list(outputs), dynamic, opset)
        onnx.checker.check_model(path, full_check=True)
        parity = compare(path, inputs, outputs, cases, expected)
    except MaskrtError:
        _remove(path)
        raise
    except Exception as error:  # torch.onnx and onnx have no common base class for their errors
        _remove(path)
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ExportError(f"{path.name} could not be exported: {first}") from error
    if not parity.max_rel <= TOLERANCE:
        _remove(path)
        raise ExportError(
            f"{path.name} differs from PyTorch by {parity.max_rel:.2e} of the largest output, above {TOLERANCE:.0e}: "
            "report this with the kind of the checkpoint"
        )
    report(f"{path.name}: differs from PyTorch by at most {parity.max_rel:.1e} of the largest output")
    return parity


class OneByOne(nn.Module):
    """Gives a network its images one after the other: this defines the answer to a batch.

    ViT-H's plain attention on three images at a time would take 10 GB.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Tensor) -> Tensor:
        """Map [B, ...] to [B, ...]."""
        return torch.cat([self.module(image[None]) for image in batch])


def compare(
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    cases: Sequence[Sequence[Tensor]],
    expected: Sequence[Sequence[NDArray[Any]]],
) -> Parity:
    """Run an ONNX file on every case in ONNX Runtime and measure how far it is from the expected outputs.

    Raises:
        ExportError: a shape differs.
    """
    max_abs = max_rel = 0.0
    with open_session(path) as session:
        for case, wanted in zip(cases, expected, strict=True):
            found = session.run({name: value.numpy() for name, value in zip(inputs, case, strict=True)})
            for name, reference in zip(outputs, wanted, strict=True):
                if found[name].shape != reference.shape:
                    raise ExportError(
                        f"{path.name}: {name} is {found[name].shape}, PyTorch's is {reference.shape}: report this"
                    )
                difference = float(np.abs(found[name] - reference).max(initial=0))
                scale = float(np.abs(reference).max(initial=0))
                max_abs = max(max_abs, difference)
                max_rel = max(max_rel, difference / scale if scale else (np.inf if difference else 0.0))
    return Parity(max_abs=max_abs, max_rel=max_rel)


def check_equal(name: str, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Compare two ways to compute the same in PyTorch.

    Raises:
        ExportError: they differ by more than TOLERANCE.
    """
    for ours, theirs in zip(found, expected, strict=True):
        difference = float((ours - theirs).abs().max() / theirs.abs().max())
        if not difference <= TOLERANCE:
            raise ExportError(
                f"{name} differs from the plain network by {difference:.2e}, above {TOLERANCE:.0e}: report this"
            )


def output_shape(path: Path, name: str) -> tuple[int | None, ...]:
    """Return an output's declared shape, None for a dynamic axis, without reading weights beside the ONNX file."""
    (output,) = (o for o in onnx.load(path, load_external_data=False).graph.output if o.name == name)
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in output.type.tensor_type.shape.dim)


def _run_torch(module: nn.Module, case: Sequence[Tensor]) -> list[NDArray[Any]]:
    with torch.no_grad():
        result = module(*case)
    arrays = [tensor.numpy() for tensor in (result if isinstance(result, tuple) else (result,))]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ExportError("the PyTorch model itself returns NaN or infinity on random input: check the checkpoint")
    return arrays


def write_graph(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    inputs: list[str],
    outputs: list[str],
    dynamic: Mapping[str, Axes],
    opset: int = OPSET,
    defaults: Mapping[str, Tensor] | None = None,
) -> None:
    """Export a module without comparing it with anything; arguments as of export_graph.

    defaults: of inputs that need not be fed.

    Raises:
        ExportError: the exporter returned nothing; other errors as it raises them.
    """
    named: dict[str, Any] = {}

    def dimension(size: Any) -> Any:
        if not isinstance(size, tuple):
            return size
        return named.setdefault(size[0], torch.export.Dim(size[0], min=1, max=size[1]))

    axes_of = [dynamic.get(name, {}) for name in inputs]
    shapes = [{axis: dimension(size) for axis, size in axes.items()} or None for axes in axes_of]
    with warnings.catch_warnings(), quiet("torch.onnx"):
        warnings.simplefilter("ignore")  # about the exporter's own internals, nothing a user could act on
        program = torch.onnx.export(
            _FromList(module),
            (list(example),),
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=(shapes,),
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
    if program is None:
        raise ExportError(f"{path.name}: torch.onnx.export returned nothing")
    _strip(program.model)
    _measure_behind_casts(program.model)
    for value in program.model.graph.inputs:
        if defaults is not None and value.name in defaults:
            value.const_value = onnx_ir.tensor(defaults[value.name].numpy(), name=value.name)
            program.model.graph.register_initializer(value)
    weights = sum(tensor.nbytes for tensor in module.state_dict(keep_vars=True).values())
    program.save(path, external_data=weights > MAX_INLINE_BYTES)
    gc.collect()  # the exporter's copies of the weights are cycles: 2.5 GB each for ViT-H


def _strip(model: Any) -> None:
    """Remove the exporter's notes from an onnx_ir model: they hold stack traces with paths of this machine.

    Shapes between the operators are removed too: every engine infers them.
    """
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if not value.is_graph_output():
                value.shape = value.type = None


def _measure_behind_casts(model: Any) -> None:
    """Read the size of a uint8 input behind its cast: in TensorRT only Cast takes uint8."""
    for image in (value for value in model.graph.inputs if value.dtype is not None and value.dtype.name == "UINT8"):
        cast = next((node for node, _ in image.uses() if node.op_type == "Cast"), None)
        shapes = [(node, index) for node, index in image.uses() if node.op_type == "Shape"]
        if cast is not None and shapes:
            for node, index in shapes:
                node.replace_input_with(index, cast.outputs[0])
            model.graph.sort()  # the sizes were read first


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    data_file(path).unlink(missing_ok=True)


class _FromList(nn.Module):
    """Takes one list: torch.onnx has no dynamic shapes for a forward with *args."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, values: list[Tensor]) -> Any:
        return self.module(*values)
