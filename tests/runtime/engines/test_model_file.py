"""An engine gets the bytes that were checked, and no weights that the bundle does not list."""

import contextlib
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.external_data import external_files
from maskrt.runtime.bundle.manifest import DataFile, ModelEntry
from maskrt.runtime.engines.loading import Sessions
from maskrt.runtime.engines.model_file import read_model
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.errors import BundleError
from maskrt.runtime.files import sha256_of


def write_model(path: Path, location: str | None) -> Path:
    """Write a model that adds two numbers; with a location they lie in another file."""
    weights = numpy_helper.from_array(np.array([3, 4], np.float32), "w")
    if location is not None:
        raw = weights.raw_data
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": "0", "length": str(len(raw))}.items():
            weights.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "add",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def entry(path: Path, *data: Path) -> ModelEntry:
    files = tuple(DataFile(file.name, sha256_of(file), file.stat().st_size) for file in data)
    return ModelEntry(path.name, sha256_of(path), path.stat().st_size, "tests", "0" * 64, data=files)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_weights_beside_the_model(tmp_path: Path, provider: str) -> None:
    if provider == "openvino":
        pytest.importorskip("openvino")
    data = tmp_path / "a.onnx.data"
    data.write_bytes(np.array([3, 4], np.float32).tobytes())
    path = write_model(tmp_path / "a.onnx", data.name)
    with open_session(path, provider, entry=entry(path, data)) as session:
        assert session.run({"x": np.zeros(2, np.float32)})["y"].tolist() == [3, 4]


def test_weights_that_are_not_listed_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx.data").write_bytes(bytes(8))
    path = write_model(tmp_path / "a.onnx", "a.onnx.data")
    with pytest.raises(BundleError, match=r"takes weights from a\.onnx\.data, the bundle lists none"):
        open_session(path, entry=entry(path))
    plain = write_model(tmp_path / "b.onnx", None)
    with pytest.raises(BundleError, match=r"takes weights from no file, the bundle lists a\.onnx\.data"):
        open_session(plain, entry=entry(plain, tmp_path / "a.onnx.data"))


@pytest.mark.parametrize("location", ["../a.data", "/etc/passwd", "b/a.data", "..", ""])
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(BundleError, match="which is no file beside it"):
        read_model(write_model(tmp_path / "a.onnx", location))


def test_a_model_swapped_after_the_check_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    with Sessions(open_bundle(folder)) as sessions:
        whole = (folder / "segmenter.onnx").read_bytes()
        (folder / "segmenter.onnx").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(BundleError, match="sha256 differs"):
            sessions.load("segmenter")
        (folder / "segmenter.onnx").unlink()
        os.mkfifo(folder / "segmenter.onnx")
        with pytest.raises(BundleError, match="not a plain file"):
            sessions.load("segmenter")


def test_files_in_branches_and_sparse_tensors_are_found(tmp_path: Path) -> None:
    inner = onnx.load(write_model(tmp_path / "a.onnx", "inner.data"), load_external_data=False).graph
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    constant = helper.make_node("Constant", [], ["k"], value=inner.initializer[0])
    constant.attribute[0].t.external_data[0].value = "constant.data"
    graph = helper.make_graph([node, constant], "outer", [], [])
    sparse = graph.sparse_initializer.add()
    sparse.values.CopyFrom(inner.initializer[0])
    sparse.values.external_data[0].value = "sparse.data"
    model = helper.make_model(graph)
    assert external_files(model.SerializeToString()) == {"inner.data", "constant.data", "sparse.data"}


def test_damaged_models_end_in_an_error_or_an_answer(tiny_bundle: Path, rng: np.random.Generator) -> None:
    whole = (tiny_bundle / "decoder.onnx").read_bytes()
    for _ in range(300):
        data = bytearray(whole[: int(rng.integers(1, len(whole)))])
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
        with contextlib.suppress(ValueError):
            assert external_files(bytes(data)) is not None
