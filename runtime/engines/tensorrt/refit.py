"""New weights for an engine that was built with others; no kernel is timed again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.runtime.engines.tensorrt.library import Messages, logger_of, parser_errors
from maskrt.runtime.errors import BundleError, NetworkError


def require_structure(name: str, ours: str, theirs: str) -> None:
    """Make sure that an engine's graph and a file differ in their weights alone.

    TensorRT itself would not notice another operator between the same weights.

    Args:
        name: the file's.
        ours, theirs: structure_sha256 of the engine's graph, and of the file.

    Raises:
        BundleError: they differ in more, or nothing is known of one of them.
    """
    if not (ours and theirs):
        raise BundleError(
            f"{name}: its bundle or its engine's has no structure_sha256, as those of older versions: export them again"
        )
    if ours != theirs:
        raise BundleError(f"{name}: it and its engine's graph differ in more than their weights")


def require_refittable(engine: Any, name: str) -> None:
    """Make sure that an ICudaEngine was built to be refitted. name: of its model.

    Raises:
        BundleError: it was not.
    """
    if not engine.refittable:
        raise BundleError(
            f"{name}: its engine was not built to be refitted: maskrt build makes those of SAM's decoder so, unless "
            "TensorRT is a version that gets them wrong"
        )


class Refit:
    """New weights, checked against an engine. `commit` sets them; until then the engine is as it was."""

    def __init__(self, tensorrt: Any, engine: Any, name: str) -> None:
        """Prepare to refit an ICudaEngine. name: whose weights these are, for errors.

        Raises:
            BundleError: the engine was not built to be refitted.
        """
        self._name = name
        self._logger, self._messages = logger_of(tensorrt)
        self._messages.clear()
        require_refittable(engine, name)
        self._refitter = tensorrt.Refitter(engine, self._logger)

    def commit(self) -> None:
        """Set the weights. The engine may have no work under way; its execution contexts stay valid.

        Raises:
            NetworkError: a part of the weights may be set, and the engine must not be used again.

        Source: NvInferRuntime.h of TensorRT 10, IRefitter::refitCudaEngine.
        """
        if not self._refitter.refit_cuda_engine():
            raise self._messages.error(f"{self._name}: its weights could not be set")


class FileRefit(Refit):
    """New weights from an ONNX file."""

    def __init__(self, tensorrt: Any, engine: Any, model: Path) -> None:
        """Read the weights of a file. model: an ONNX file with the structure of the engine's graph.

        Raises:
            BundleError: the engine was not built to be refitted.
            NetworkError: the file's weights do not fit the engine.
        """
        super().__init__(tensorrt, engine, model.name)
        self._parser = tensorrt.OnnxParserRefitter(self._refitter, self._logger)  # holds the weights until commit
        if not self._parser.refit_from_file(str(model)):
            raise NetworkError(f"{self._name}: TensorRT refuses its weights ({parser_errors(self._parser)})")
        if missing := self._refitter.get_missing_weights():
            raise NetworkError(f"{self._name}: it lacks weights of its engine: {', '.join(missing)}")


class ArrayRefit(Refit):
    """New weights from memory, by the names of the graph's initializers; those that are not named stay as they are."""

    def __init__(self, tensorrt: Any, engine: Any, name: str, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Hand the weights to TensorRT. name: of the engine's model.

        Raises:
            BundleError: the engine was not built to be refitted.
            NetworkError: the engine has no weights of a name, or they are not float32 or of another count; or it has
                merged given ones with some that are not.
        """
        super().__init__(tensorrt, engine, name)
        self._held: list[Any] = []  # until commit: TensorRT reads the arrays, and copies none before
        if unknown := sorted(set(weights) - set(self._refitter.get_all_weights())):
            raise NetworkError(
                f"{name}: its engine has no weights {', '.join(unknown)}: leave them out, or export the bundle again "
                "and run maskrt build"
            )
        for each, value in weights.items():
            self._set(tensorrt, each, value)
        if missing := self._refitter.get_missing_weights():
            raise NetworkError(f"{name}: its engine has merged {', '.join(missing)} with given weights: give them too")

    def _set(self, tensorrt: Any, weights_name: str, value: NDArray[np.float32]) -> None:
        wanted = self._refitter.get_weights_prototype(weights_name)
        if value.dtype != np.float32 or wanted.dtype != tensorrt.DataType.FLOAT or value.size != wanted.size:
            raise NetworkError(
                f"{self._name}: weights {weights_name} are {value.dtype} {list(value.shape)}, its engine takes "
                f"{wanted.size} of type {wanted.dtype.name}: give float32 weights of the bundle that it was built of"
            )
        array = np.ascontiguousarray(value)
        given = tensorrt.Weights(array)
        self._held += [array, given]
        if not self._refitter.set_named_weights(weights_name, given):
            raise self._messages.error(f"{self._name}: TensorRT refuses the weights {weights_name}")


def refitted_plan(tensorrt: Any, plan: bytes, model: Path) -> bytes:
    """Return a serialised engine with the weights of another file; it can be refitted again.

    Raises:
        BundleError, NetworkError, OutOfMemory: see FileRefit and its commit; or the engine does not load, or not again.
    """
    logger, messages = logger_of(tensorrt)
    runtime = tensorrt.Runtime(logger)
    engine = _loaded(runtime, plan, model.name, messages)
    FileRefit(tensorrt, engine, model).commit()
    config, flags = engine.create_serialization_config(), tensorrt.SerializationFlag
    if hasattr(flags, "INCLUDE_REFIT"):  # from 10.14 on; before, what was refittable stays so
        config.set_flag(flags.INCLUDE_REFIT)
    refitted = engine.serialize_with_config(config)
    if refitted is None:
        raise messages.error(f"{model.name}: its engine could not be written")
    if not _loaded(runtime, bytes(refitted), model.name, messages).refittable:
        raise NetworkError(f"{model.name}: TensorRT wrote an engine that cannot be refitted again")
    return bytes(refitted)


def _loaded(runtime: Any, plan: bytes, name: str, messages: Messages) -> Any:
    messages.clear()
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise messages.error(f"{name}: the engine does not load")
    return engine
