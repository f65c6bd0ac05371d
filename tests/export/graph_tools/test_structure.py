"""Two graphs have the same structure where they differ in their weights' values, and in nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from maskrt.export.architectures.sam import build_sam
from maskrt.export.bundles.entries import model_entry
from maskrt.export.bundles.sams import WRITERS
from maskrt.export.graph_tools.fp16 import convert_fp16
from maskrt.export.graph_tools.structure import structure_sha256
from maskrt.runtime.files import sha256_of
from maskrt.runtime.sam.mask_decoder import SPLIT_DECODER

FLOAT = onnx.TensorProto.FLOAT


def model(seed: int = 0, width: int = 8, scale: float = 2.0, rows: int = 2, opset: int = 20) -> onnx.ModelProto:
    """(x @ weight * scale + bias) reshaped to rows, every initializer of a kind of its own."""
    rng = np.random.default_rng(seed)
    constants = {
        "weight": rng.standard_normal((4, width), np.float32),
        "bias": rng.standard_normal(width, np.float32),
        "scale": np.array(scale, np.float32),
        "rows": np.array([rows, -1], np.int64),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["a"]),
        helper.make_node("Mul", ["a", "scale"], ["b"]),
        helper.make_node("Add", ["b", "bias"], ["c"]),
        helper.make_node("Reshape", ["c", "rows"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(*end) for end in (("x", FLOAT, ["n", 4]), ("y", FLOAT, [None, None]))]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def hash_of(made: onnx.ModelProto, path: Path, **options: Any) -> str:
    onnx.save(made, path, **options)
    return structure_sha256(path)


def test_seeds_have_one_structure(tmp_path: Path) -> None:
    paths = [tmp_path / f"{seed}.onnx" for seed in range(4)]
    assert len({hash_of(model(seed), path) for seed, path in enumerate(paths)}) == 1
    assert len({sha256_of(path) for path in paths}) == 4


@pytest.mark.parametrize("changed", [{"width": 12}, {"scale": 2.5}, {"rows": 4}, {"opset": 19}])
def test_what_is_no_weight_counts(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert hash_of(model(**changed), tmp_path / "b.onnx") != hash_of(model(), tmp_path / "a.onnx")


def _rename(made: onnx.ModelProto) -> None:
    made.graph.initializer[0].name = made.graph.node[0].input[1] = "another"


def _narrow(made: onnx.ModelProto) -> None:
    weight = made.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))


CHANGES: dict[str, Callable[[onnx.ModelProto], Any]] = {
    "operator": lambda made: setattr(made.graph.node[2], "op_type", "Sub"),
    "attribute": lambda made: made.graph.node[3].attribute.append(helper.make_attribute("allowzero", 1)),
    "order": lambda made: made.graph.node[1].input.reverse(),
    "name of a weight": _rename,
    "type of a weight": _narrow,
    "name of an input": lambda made: (
        setattr(made.graph.input[0], "name", "z"),  # type: ignore[func-returns-value]
        made.graph.node[0].input.__setitem__(0, "z"),
    ),
    "size of an input": lambda made: setattr(made.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 5),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_graph_is_another(tmp_path: Path, change: str) -> None:
    made = model()
    CHANGES[change](made)
    assert hash_of(made, tmp_path / "b.onnx") != hash_of(model(), tmp_path / "a.onnx")


def test_notes_do_not_count(tmp_path: Path) -> None:
    made = model()
    made.producer_name, made.producer_version, made.doc_string = "someone", "9", "of a network"
    made.metadata_props.add(key="path", value="/home")
    for message in (made.graph, made.graph.node[0], made.graph.initializer[0], made.graph.initializer[3]):
        message.doc_string = "a note"
        message.metadata_props.add(key="line", value="7")
    assert hash_of(made, tmp_path / "b.onnx") == hash_of(model(), tmp_path / "a.onnx")


def test_weights_beside_the_file(tmp_path: Path) -> None:
    """Everything lies there, integers too, and these still count."""
    beside: dict[str, Any] = {"save_as_external_data": True, "size_threshold": 0}
    found = []
    for name, made in (("a", model()), ("b", model(1)), ("c", model(rows=4)), ("d", model(scale=3.0))):
        path = tmp_path / f"{name}.onnx"
        found.append(hash_of(made, path, location=f"{path.name}.data", **beside))
        assert path.with_name(f"{path.name}.data").stat().st_size > 100
    assert found[0] == found[1] == hash_of(model(), tmp_path / "inline.onnx")
    assert len(set(found)) == 3


def test_lower_precisions_keep_it(tmp_path: Path) -> None:
    paths = [tmp_path / f"{seed}.onnx" for seed in range(2)]
    for seed, path in enumerate(paths):
        onnx.save(model(seed), path)
        convert_fp16(path, path.with_suffix(".fp16.onnx"))
    first, second = (structure_sha256(path.with_suffix(".fp16.onnx")) for path in paths)
    assert first == second != structure_sha256(paths[0])


def test_entries_have_it(tmp_path: Path) -> None:
    graph, archive = tmp_path / "a.onnx", tmp_path / "b.npz"
    onnx.save(model(), graph)
    archive.write_bytes(b"numbers")
    assert model_entry(graph, "sam", archive, None).structure_sha256 == structure_sha256(graph)
    assert model_entry(archive, "sam", archive, None).structure_sha256 == ""


@pytest.mark.export
def test_sam_decoders_of_two_checkpoints(tmp_path: Path, tiny_config: Any, scrambled: Callable[..., Any]) -> None:
    """As the exporter writes them: what is refitted after a decoder has learnt."""
    found: list[dict[str, tuple[str, str]]] = []
    for seed in range(2):
        sam, folder = scrambled(build_sam(tiny_config), seed), tmp_path / str(seed)
        folder.mkdir()
        for role in ("decoder", *SPLIT_DECODER):
            WRITERS[role](sam, tiny_config, folder / f"{role}.onnx", lambda _: None)
        found.append({file.name: (structure_sha256(file), sha256_of(file)) for file in folder.iterdir()})
    assert len(found[0]) == 4
    for name, (structure, content) in found[0].items():
        assert structure == found[1][name][0]
        assert content != found[1][name][1]
