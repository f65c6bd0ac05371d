"""A bundle of three tiny ONNX graphs that keep the contracts of the real ones; needs no PyTorch.

The segmenter calls bright pixels class 1. The decoder draws three discs around the prompted point, with predicted IoUs
0.97, 0.94 and 0.5 for radii 5, 9 and 14 in pixels of a 64-pixel input, so that masks are real and differ.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from maskrt.export.graph_tools.structure import structure_sha256
from maskrt.runtime.bundle.bundle import MANIFEST
from maskrt.runtime.bundle.manifest import SCHEMA, ModelEntry, SossManifest, encode_manifest
from maskrt.runtime.bundle.specs import MasksSpec, SamSpec, SegmenterSpec
from maskrt.runtime.files import sha256_of

OPSET = 17
IMAGE_SIZE, LOW_RES, EMBEDDING, INPUT_HW = 64, 32, 4, (24, 32)
RADII, PRED_IOU = (5.0, 9.0, 14.0), (0.97, 0.94, 0.5)


def write_tiny_bundle(
    folder: Path, fill: float = 0.0, radii: tuple[float, ...] = RADII, segmenter_batch: int | str = "B"
) -> Path:
    """Write the bundle.

    Args:
        fill: is added to the segmenter's logits (NaN makes every frame fail).
        radii: of the decoder's discs, which are weights of its graph.
        segmenter_batch: the first axis of its input; 1 as a user's own segmenter may have it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {"segmenter": _segmenter(fill, segmenter_batch), "encoder": _encoder(), "decoder": _decoder(radii)}
    entries = {}
    for role, graph in graphs.items():
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(model)
        file = folder / f"{role}.onnx"
        onnx.save(model, file)
        entries[role] = ModelEntry(
            file.name,
            sha256_of(file),
            file.stat().st_size,
            "tests/helpers/tiny_bundle.py",
            "0" * 64,
            structure_sha256=structure_sha256(file),
        )
    manifest = SossManifest(
        schema=SCHEMA,
        maskrt="0.1.0",
        precision="fp32",
        opset=OPSET,
        models=entries,
        segmenter=SegmenterSpec(INPUT_HW, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), ("background", "occlusion")),
        sam=SamSpec(IMAGE_SIZE, (LOW_RES, LOW_RES)),
        masks=MasksSpec(points_per_side=4, points_per_batch=8),
    )
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))
    return folder


def _segmenter(fill: float, batch: int | str) -> onnx.GraphProto:
    shape = [batch, 3, *INPUT_HW]
    weight = np.array([[-3, -3, -3], [3, 3, 3]], np.float32)[:, :, None, None]
    # Layers that change nothing: int8 leaves the outer ones of a network in float32.
    same, seen = np.eye(3, dtype=np.float32)[:, :, None, None], ["image", "seen_1", "seen_2", "seen_3", "seen_4"]
    constants = {"same": same, "weight": weight, "fill": np.array(fill, np.float32)}
    nodes = [
        *(helper.make_node("Conv", [before, "same"], [after]) for before, after in pairwise(seen)),
        helper.make_node("Conv", [seen[-1], "weight"], ["scores"]),
        helper.make_node("Add", ["scores", "fill"], ["logits"]),
    ]
    return _graph("segmenter", nodes, {"image": shape}, {"logits": [batch, 2, *INPUT_HW]}, constants)


def _encoder() -> onnx.GraphProto:
    constants = {"size": np.array([EMBEDDING, EMBEDDING], np.int64)}
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Shape", ["channels_first"], ["planes"], end=2),
        helper.make_node("Concat", ["planes", "size"], ["sizes"], axis=0),
        helper.make_node("Resize", ["channels_first", "", "", "sizes"], ["image_embeddings"], mode="linear"),
    ]
    outputs: dict[str, list[int | str]] = {"image_embeddings": ["B", 3, EMBEDDING, EMBEDDING]}
    graph = _graph("encoder", nodes, {"image": ["B", "h", "w", 3]}, outputs, constants)
    graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    return graph


def _decoder(radii: tuple[float, ...]) -> onnx.GraphProto:
    """low_res_masks = radius^2 - distance^2 to the first point; boundaries are so steep that every disc is stable."""
    centres = ((np.arange(LOW_RES) + 0.5) * IMAGE_SIZE / LOW_RES).astype(np.float32)
    constants: dict[str, np.ndarray] = {
        "grid_x": centres[None, None, None, :],
        "grid_y": centres[None, None, :, None],
        "squares": (np.array(radii, np.float32) ** 2)[None, :, None, None],
        "quality": np.array([PRED_IOU], np.float32),
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "nothing": np.array(0, np.float32),
        "column": np.array([-1, 1, 1, 1], np.int64),
        "row": np.array([-1, 1], np.int64),
    }
    others = "image_embeddings", "point_labels", "mask_input", "has_mask_input"
    nodes = [
        helper.make_node("Gather", ["point_coords", "zero"], ["point"], axis=1),
        *(
            node
            for axis, at in (("x", "zero"), ("y", "one"))
            for node in (
                helper.make_node("Gather", ["point", at], [axis], axis=1),
                helper.make_node("Reshape", [axis, "column"], [f"{axis}_column"]),
                helper.make_node("Sub", [f"grid_{axis}", f"{axis}_column"], [f"d{axis}"]),
                helper.make_node("Mul", [f"d{axis}", f"d{axis}"], [f"d{axis}2"]),
            )
        ),
        helper.make_node("Add", ["dx2", "dy2"], ["distance2"]),
        helper.make_node("Sub", ["squares", "distance2"], ["discs"]),
        # The other inputs take part, so that an engine keeps them.
        *(helper.make_node("ReduceMean", [name], [f"{name}_mean"], keepdims=0) for name in others),
        helper.make_node("Sum", [f"{name}_mean" for name in others], ["unused"]),
        helper.make_node("Mul", ["unused", "nothing"], ["silent"]),
        helper.make_node("Add", ["discs", "silent"], ["low_res_masks"]),
        helper.make_node("Reshape", ["x", "row"], ["x_row"]),
        helper.make_node("Mul", ["x_row", "nothing"], ["zeros"]),
        helper.make_node("Add", ["zeros", "quality"], ["pred_iou"]),
    ]
    inputs: dict[str, list[int | str]] = {
        "image_embeddings": [1, 3, EMBEDDING, EMBEDDING],
        "point_coords": ["B", "P", 2],
        "point_labels": ["B", "P"],
        "mask_input": ["M", 1, LOW_RES, LOW_RES],
        "has_mask_input": [1],
    }
    outputs: dict[str, list[int | str]] = {"low_res_masks": ["B", 3, LOW_RES, LOW_RES], "pred_iou": ["B", 3]}
    return _graph("decoder", nodes, inputs, outputs, constants)


def _graph(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, np.ndarray],
) -> onnx.GraphProto:
    return helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in inputs.items()],
        [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in outputs.items()],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
