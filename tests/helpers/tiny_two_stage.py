"""Bundles of a two-stage segmenter whose networks are a few convolutions; needs no PyTorch and no export code.

`low` and `high` halve the picture with a convolution of stride 2 and double it with a transposed one, beside a
pointwise convolution: odd sides would not come back. Both call bright pixels the second class; `high` sees more edges.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from maskrt.runtime.bundle.bundle import MANIFEST
from maskrt.runtime.bundle.manifest import SCHEMA, ModelEntry, TwoStageManifest, encode_manifest
from maskrt.runtime.bundle.two_stage_spec import PatchSelectionSpec, TwoStageSpec
from maskrt.runtime.files import sha256_of

OPSET = 17
CLASSES = ("background", "lesion", "vessel", "optic disc")


def write_tiny_two_stage(
    folder: Path,
    *,
    classes: int = 2,
    logits: int | None = None,
    channels: int = 3,
    size: int = 128,
    shrink: int = 8,
    multiple: int = 32,
    fit: str = "keep",
    patch_selection: PatchSelectionSpec | None = None,
    shapes: Mapping[str, tuple[int | str, ...]] | None = None,
    bias: dict[str, float] | None = None,
    gain: float = 1.0,
    roles: tuple[str, ...] = ("low", "high"),
) -> Path:
    """Write the bundle.

    Args:
        logits: of a pixel; as many as classes where None, 1 of two classes where 1.
        shapes: role -> the input's (batch, height, width), dynamic where left out.
        bias: role -> what is added to the logits; NaN makes every frame fail.
        gain: of all weights; 0 makes the logits the bias alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for seed, role in enumerate(roles):
        batch, height, width = (shapes or {}).get(role, ("B", "H", "W"))
        graph = network(
            role, logits or classes, channels, (batch, height, width), (bias or {}).get(role, 0.0), gain, seed
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(model)
        file = folder / f"{role}.onnx"
        onnx.save(model, file)
        entries[role] = ModelEntry(
            file.name, sha256_of(file), file.stat().st_size, "tests/helpers/tiny_two_stage.py", "0" * 64
        )
    manifest = TwoStageManifest(
        schema=SCHEMA,
        maskrt="0.1.0",
        precision="fp32",
        opset=OPSET,
        models=entries,
        two_stage=spec_of(classes=classes, channels=channels, size=size, shrink=shrink, multiple=multiple, fit=fit),
        patch_selection=patch_selection or PatchSelectionSpec(patches=4),
    )
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))
    return folder


def spec_of(classes: int = 2, channels: Any = 3, **sizes: Any) -> TwoStageSpec:
    """The spec of such a bundle; unequal means, so that exchanged channels are noticed."""
    mean, std = ((0.5, 0.45, 0.4), (0.25, 0.3, 0.2)) if channels == 3 else ((0.45,), (0.25,))
    return TwoStageSpec(**sizes, channels=channels, mean=mean, std=std, classes=CLASSES[:classes])


def network(
    role: str, logits: int, channels: int, shape: tuple[int | str, ...], bias: float, gain: float, seed: int
) -> onnx.GraphProto:
    """logits = pointwise(picture) + transposed(relu(strided(picture))) + bias."""
    batch, height, width = shape
    rng = np.random.default_rng(seed)

    def draw(*size: int) -> np.ndarray:
        return (gain * rng.standard_normal(size) / np.sqrt(np.prod(size[1:]))).astype(np.float32)

    slope = np.linspace(-1, 1, logits) if logits > 1 else np.ones(1)
    constants: dict[str, Any] = {
        "strided": draw(4, channels, 3, 3),
        "transposed": draw(4, logits, 2, 2),
        "pointwise": (gain * 1.5 / channels * np.repeat(slope[:, None], channels, axis=1)).astype(np.float32)[
            ..., None, None
        ],
        "bias": np.float32(bias),
    }
    nodes = [
        helper.make_node("Conv", ["picture", "strided"], ["halved"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["halved"], ["features"]),
        helper.make_node("ConvTranspose", ["features", "transposed"], ["doubled"], strides=[2, 2]),
        helper.make_node("Conv", ["picture", "pointwise"], ["bright"]),
        helper.make_node("Add", ["doubled", "bright"], ["sum"]),
        helper.make_node("Add", ["sum", "bias"], ["logits"]),
    ]
    return helper.make_graph(
        nodes,
        role,
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [batch, channels, height, width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, logits, height, width])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )


class Network:
    """A session: logits are made by `answer` from pictures, whose shapes are kept."""

    def __init__(self, answer: Any, shape: tuple[int | None, ...] = (None, 3, None, None), logits: Any = 1) -> None:
        self.inputs, self.outputs = (
            {"x": ("tensor(float)", shape)},
            {"y": ("tensor(float)", (None, logits, None, None))},
        )
        self.answer = answer
        self.shapes: list[tuple[int, ...]] = []

    def run(self, feeds: dict[str, np.ndarray], check: Any = None) -> dict[str, np.ndarray]:
        self.shapes.append(feeds["x"].shape)
        return {"y": np.ascontiguousarray(self.answer(feeds["x"]), dtype=np.float32)}


def level(logit: float) -> Any:
    """The same logit everywhere."""
    return lambda pictures: np.full((len(pictures), 1, *pictures.shape[2:]), logit)
