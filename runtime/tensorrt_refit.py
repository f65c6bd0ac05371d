"""New weights for an engine that was built with others: no kernel is timed again."""

from pathlib import Path
from typing import Any

from maskrt.runtime.errors import BundleError, NetworkError
from maskrt.runtime.tensorrt_library import Messages, logger_of, parser_errors


def require_structure(name: str, ours: str, theirs: str) -> None:
    """Make sure that an engine's graph and a file differ in their weights alone.

    TensorRT itself would not notice another operator between the same weights.

    Args:
        name: of the file.
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
    """The weights of a file, checked against an engine; `commit` lets the engine compute with them.

    Until then the engine is as it was.
    """

    def __init__(self, tensorrt: Any, engine: Any, model: Path) -> None:
        """engine: an ICudaEngine, model: an ONNX file of the structure of the engine's graph.

        Raises:
            BundleError: the engine was not built for it.
            NetworkError: the file's weights do not fit the engine.
        """
        self._name = model.name
        logger, self._messages = logger_of(tensorrt)
        self._messages.clear()
        require_refittable(engine, self._name)
        self._refitter = tensorrt.Refitter(engine, logger)
        self._parser = tensorrt.OnnxParserRefitter(self._refitter, logger)  # holds the weights until commit
        if not self._parser.refit_from_file(str(model)):
            raise NetworkError(f"{self._name}: TensorRT refuses its weights ({parser_errors(self._parser)})")
        if missing := self._refitter.get_missing_weights():
            raise NetworkError(f"{self._name}: it lacks weights of its engine: {', '.join(missing)}")

    def commit(self) -> None:
        """Set the weights. The engine may have no work under way; its execution contexts stay valid.

        Raises:
            NetworkError: a part of the weights may be set, and the engine is not to be used again.

        Source: NvInferRuntime.h of TensorRT 10, IRefitter::refitCudaEngine.
        """
        if not self._refitter.refit_cuda_engine():
            raise self._messages.error(f"{self._name}: its weights could not be set")


def refitted_plan(tensorrt: Any, plan: bytes, model: Path) -> bytes:
    """A serialised engine with the weights of another file, to be refitted again.

    Raises:
        BundleError, NetworkError, OutOfMemory: as Refit and its commit; or the engine does not load, or not again.
    """
    logger, messages = logger_of(tensorrt)
    runtime = tensorrt.Runtime(logger)
    engine = _loaded(runtime, plan, model.name, messages)
    Refit(tensorrt, engine, model).commit()
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
