"""Count the multiply-adds of each operator, from the sizes of its inputs and outputs.

A multiply-add is a product with a weight, or with another activation, that a plain loop adds up. Zeros of the padding
count as if they were multiplied, and so do values that a transposed convolution computes beyond the border and cuts
off. Biases, norms, activations, sums, resizes and softmax are no products; maskrt inspect lists them with none.
"""

from collections.abc import Callable
from math import prod

from onnx import helper

from maskrt.export.graph_tools.shapes import Step, Value
from maskrt.runtime.errors import CostUnknown

Count = Callable[[Step], int]
# Operators that multiply and add in other ways than those below. Our exports have none of them.
UNCOUNTED = ("Attention", "DFT", "DeformConv", "GRU", "LSTM", "LinearAttention", "RNN", "STFT")


def multiply_adds(step: Step) -> int:
    """Count a node's multiply-adds in one run: 0 where it depends on no input, since an engine computes it on loading.

    Raises:
        CostUnknown: the operator multiplies and adds in a way that is not counted here.
    """
    if step.constant:
        return 0
    if step.node.op_type in UNCOUNTED:
        raise CostUnknown(f"{step.label}: its products are not counted: export it as MatMul or Conv")
    count = PRODUCTS.get(step.node.op_type)
    return 0 if count is None else count(step)


def paper_flops(step: Step) -> int:
    """Count a node as papers on two-stage segmentation do: F * F * Cin * Hout * Wout * Cout for every convolution.

    It is the number of multiply-adds of a plain convolution, called FLOPs there and not doubled. For a transposed
    convolution it is too large by the product of its strides: each of its outputs is a sum over the kernel's taps that
    hit an input, F * F / stride² of them and not F * F. Other operators count as in multiply_adds.
    """
    if step.node.op_type != "ConvTranspose" or step.constant:
        return multiply_adds(step)
    inputs, weights, output = _read(step, 0), _read(step, 1), step.outputs[0]
    groups = output.shape[1] // weights.shape[1]
    return output.elements * inputs.shape[1] // groups * prod(weights.shape[2:])


def _read(step: Step, index: int) -> Value:
    value = step.inputs[index]
    if value is None:
        raise CostUnknown(f"{step.label}: input {index} is left out, which ONNX does not allow")
    return value


def _convolution(weights: int) -> Count:
    """Count an operator whose outputs sum over the kernel and their group's input channels.

    Weights are [Cout, Cin/groups, ...].
    """
    return lambda step: step.outputs[0].elements * prod(_read(step, weights).shape[1:])


def _transposed(step: Step) -> int:
    """Count every input times the kernels of its group's outputs. Weights are [Cin, Cout/groups, ...]."""
    return _read(step, 0).elements * prod(_read(step, 1).shape[1:])


def _product(left: int) -> Count:
    """Count an operator whose outputs sum over the last axis of the left matrix, whatever the batch."""
    return lambda step: step.outputs[0].elements * _read(step, left).shape[-1]


def _gemm(step: Step) -> int:
    turned = any(attribute.name == "transA" and attribute.i for attribute in step.node.attribute)
    return step.outputs[0].elements * _read(step, 0).shape[0 if turned else 1]


def _einsum(step: Step) -> int:
    """Count one product for each combination of indices of two operands."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in step.node.attribute}
    terms = attributes["equation"].decode().replace(" ", "").partition("->")[0].split(",")
    if len(terms) == 1:
        return 0
    if len(terms) > 2:
        raise CostUnknown(
            f"{step.label}: its products depend on the order of {len(terms)} operands: export products of two"
        )
    sizes: dict[str | int, int] = {}
    for index, term in enumerate(terms):
        value = _read(step, index)
        before, _, after = term.partition("...")
        spread = len(value.shape) - len(before) - len(after)  # axes that "..." stands for, aligned at the last
        for label, size in zip((*before, *range(-spread, 0), *after), value.shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return prod(sizes.values())


# Operator -> its multiply-adds; all others have none.
PRODUCTS: dict[str, Count] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "ConvTranspose": _transposed,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _product(0),
    "MatMulInteger": _product(0),
    "QLinearConv": _convolution(3),
    "QLinearMatMul": _product(0),
}
