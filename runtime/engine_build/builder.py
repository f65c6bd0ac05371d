"""Builds TensorRT engines from ONNX graphs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.engine_build.profiles import profile_of
from maskrt.runtime.engines.tensorrt.library import Messages, load_tensorrt, logger_of, parser_errors
from maskrt.runtime.engines.tensorrt.memory import Cuda
from maskrt.runtime.engines.tensorrt.refit import refitted_plan, require_structure
from maskrt.runtime.engines.tensorrt.store import (
    EngineFiles,
    Recipe,
    files_of,
    find_engine,
    is_built,
    model_sha256,
    store_engine,
    target_of,
    writable_files,
    write_private,
)
from maskrt.runtime.errors import BundleError, InputError, NetworkError
from maskrt.runtime.kinds.table import kind_of
from maskrt.runtime.sam.mask_decoder import SPLIT_DECODER

Tell = Callable[[str, int, int], None]  # phase, steps done, steps in all

REFIT = "REFIT"  # the builder's flag for engines that can get new weights; it leaves fewer kernels to choose from
# Roles that are trained further, or learn while they are used; the rest of SAM stays as it is.
REFITTABLE = ("decoder", *SPLIT_DECODER, "click_decoder")
# Versions whose engines with REFIT may be wrong even before a refit: a bias of a matrix product may be lost.
# Source: TensorRT 11.3.0's documentation, "Refitting an Engine".
UNSOUND_REFIT = ("11.3",)


@dataclass(frozen=True)
class BuildSettings:
    """The user's settings for building engines.

    workspace_mb: memory that the builder may use to try a kernel, 10^6 bytes; None is TensorRT's own limit. tf32: round
    float32 products to 10 bits, which is faster and changes the answer. batch: the most frames that segmenter and
    encoder will get at a time.
    """

    workspace_mb: int | None = None
    tf32: bool = False
    batch: int = 1

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of builder flags, for the recipe."""
        return ("TF32",) if self.tf32 else ()


@dataclass(frozen=True)
class Built:
    """An engine, and how it came about: found, refitted from another bundle's, or built; why: it was not refitted."""

    role: str
    engine: Path
    how: Literal["found", "refitted", "built"]
    why: str = ""


class EngineBuilder:
    """A builder of a bundle's engines for one GPU of this machine, with one timing cache for all."""

    def __init__(
        self, bundle: Bundle, settings: BuildSettings, *, device: int = 0, refit_from: Bundle | None = None
    ) -> None:
        """Load TensorRT and select the GPU.

        Args:
            device: the GPU's number.
            refit_from: an older bundle in the same precision, whose engines take this one's weights where they fit.

        Raises:
            ProviderUnavailable: TensorRT, its CUDA bindings or the GPU of this number is absent.
            InputError: refit_from is the bundle itself.
        """
        if refit_from is not None and refit_from.path.resolve() == bundle.path.resolve():
            raise InputError(f"--refit-from {refit_from.path} is the bundle itself: name the one it was trained from")
        self._tensorrt = load_tensorrt()
        cuda = Cuda(device)
        cuda.select()  # TensorRT builds for the calling thread's GPU
        self.target = target_of(self._tensorrt, cuda)
        self._logger, self._messages = logger_of(self._tensorrt)
        self._bundle, self._settings, self._refit_from = bundle, settings, refit_from
        models, left_out = bundle.manifest.models.items(), kind_of(bundle).no_engine
        self.roles = tuple(role for role, entry in models if entry.file.endswith(".onnx") and role not in left_out)

    def build(self, role: str, tell: Tell) -> Built:
        """Build one engine, or refit an older one, unless it exists already.

        Raises:
            BundleError: TensorRT does not take the graph, or the graph has an axis that no profile knows.
            NetworkError: TensorRT fails to build it.
            OutOfMemory: not even the builder's trials fit.
            MaskrtError: the engine cannot be written.
        """
        model = self._bundle.model_path(role)
        digest = model_sha256(model)
        network = _Network(self._tensorrt, self._logger, self._messages, model)
        recipe = Recipe(
            profile_of(self._bundle, role, network.shapes, self._settings.batch),
            (*_refit_flags(role, self.target.tensorrt), *self._settings.flags),
            self._settings.workspace_mb,
        )
        for files in files_of(model, self.target):
            if is_built(files, digest, self.target, recipe):
                return Built(role, files.engine, "found")
        files = writable_files(model, self.target)  # checked before a build that takes minutes
        refitted, why = self._refit(role, recipe, tell)
        if refitted is not None:
            store_engine(files, refitted, digest, self.target, recipe)
            return Built(role, files.engine, "refitted")
        plan = network.build(recipe, _timing_cache(files), tell)
        store_engine(files, plan.engine, digest, self.target, recipe)
        write_private({files.timings: plan.timings})
        return Built(role, files.engine, "built", why)

    def _refit(self, role: str, recipe: Recipe, tell: Tell) -> tuple[bytes | None, str]:
        """Return the older bundle's engine with this one's weights, or None and why there is no such engine."""
        if self._refit_from is None:
            return None, ""
        if REFIT not in recipe.flags:
            wrong = f"TensorRT {self.target.tensorrt} may build wrong engines when they can be refitted"
            return None, wrong if role in REFITTABLE else "only engines of SAM's decoder are refitted"
        model = self._bundle.model_path(role)
        tell("refitting", 0, 1)
        try:
            older = self._refit_from.model(role)
            require_structure(model.name, older.structure_sha256, self._bundle.model(role).structure_sha256)
            plan = find_engine(self._refit_from.model_path(role), self.target, recipe)
            return refitted_plan(self._tensorrt, plan, model), ""
        except (BundleError, NetworkError) as error:
            return None, str(error)


@dataclass(frozen=True)
class _Plan:
    """A serialised engine, and the timing cache after its build."""

    engine: bytes
    timings: bytes


class _Network:
    """A parsed ONNX file, strongly typed: every layer computes in the file's types."""

    def __init__(self, tensorrt: Any, logger: Any, messages: Messages, model: Path) -> None:
        self._tensorrt, self._messages, self._model = tensorrt, messages, model
        messages.clear()
        flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        self._builder = tensorrt.Builder(logger)
        self._network = self._builder.create_network(0 if flag is None else 1 << int(flag))
        self._parser = tensorrt.OnnxParser(self._network, logger)
        if not self._parser.parse_from_file(str(model)):
            raise BundleError(
                f"TensorRT {tensorrt.__version__} does not take {model.name} ({parser_errors(self._parser)}): "
                "export the bundle again with this maskrt"
            )
        inputs = [self._network.get_input(index) for index in range(self._network.num_inputs)]
        self.shapes = {tensor.name: tuple(int(size) for size in tensor.shape) for tensor in inputs}
        for tensor in inputs:
            if tensor.dtype == tensorrt.DataType.UINT8:
                self._read_through_cast(tensor)

    def _read_through_cast(self, image: Any) -> None:
        """Let every layer that reads the size of a uint8 input read a float copy: TensorRT can only cast uint8.

        Source: NVIDIA/TensorRT issue 3985, "All UINT8 inputs must directly feed into a cast layer in TensorRT".
        """
        tensorrt, network = self._tensorrt, self._network
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        readers = [
            (layer, index)
            for layer in layers
            for index in range(layer.num_inputs)
            if layer.type != tensorrt.LayerType.CAST
            and (read := layer.get_input(index)) is not None
            and read.name == image.name
        ]
        if readers:
            copy = network.add_cast(image, tensorrt.DataType.FLOAT).get_output(0)
            for layer, index in readers:
                layer.set_input(index, copy)

    def build(self, recipe: Recipe, timings: bytes, tell: Tell) -> _Plan:
        """Time the kernels and write the engine; raises NetworkError, OutOfMemory, or an error that `tell` raised."""
        tensorrt = self._tensorrt
        config = self._builder.create_builder_config()
        config.clear_flag(tensorrt.BuilderFlag.TF32)  # it is on in every new config
        for flag in recipe.flags:
            config.set_flag(getattr(tensorrt.BuilderFlag, flag))
        if recipe.workspace_mb is not None:
            config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, recipe.workspace_mb * 10**6)
        if recipe.profile:
            profile = self._builder.create_optimization_profile()
            for name, (least, usual, largest) in recipe.profile.items():
                profile.set_shape(name, least, usual, largest)
            if config.add_optimization_profile(profile) < 0:
                raise self._messages.error(f"{self._model.name}: its profile is refused")
        cache = config.create_timing_cache(timings)
        if cache is None or not config.set_timing_cache(cache, False):  # damaged, or of another GPU or version
            config.set_timing_cache(config.create_timing_cache(b""), False)
        monitor = _monitor(tensorrt, tell)
        config.progress_monitor = monitor
        plan = self._builder.build_serialized_network(self._network, config)
        if monitor.error is not None:
            raise monitor.error
        if plan is None:
            raise self._messages.error(f"{self._model.name} could not be built")
        return _Plan(bytes(plan), bytes(config.get_timing_cache().serialize()))


def _monitor(tensorrt: Any, tell: Tell) -> Any:
    """Make a monitor that reports the outermost phases."""

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            # Ctrl-C arrives here, where Python runs; no exception may pass through TensorRT's own code.
            try:
                if phase_name in self._steps:
                    tell(phase_name, step + 1, self._steps[phase_name])
            except BaseException as error:
                self.error = error
            return self.error is None

    return Monitor()


def _refit_flags(role: str, tensorrt: str) -> tuple[str, ...]:
    """Return the builder flags that prepare a role's engine for later weights."""
    sound = tensorrt.split(".")[:2] not in [version.split(".") for version in UNSOUND_REFIT]
    return (REFIT,) if role in REFITTABLE and sound else ()


def _timing_cache(files: EngineFiles) -> bytes:
    """Return the timings that earlier builds have measured; empty if there were none."""
    try:
        return files.timings.read_bytes()
    except FileNotFoundError:
        return b""
