"""ONNX graphs to TensorRT engines."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from maskrt.runtime.bundle import Bundle, Manifest, SossManifest, TwoStageManifest, with_overrides
from maskrt.runtime.cuda_memory import Cuda
from maskrt.runtime.errors import BundleError
from maskrt.runtime.tensorrt_library import Messages, load_tensorrt, logger_of
from maskrt.runtime.tensorrt_profiles import profile_of
from maskrt.runtime.tensorrt_store import (
    TIMING_CACHE,
    Place,
    Recipe,
    is_built,
    model_sha256,
    places_of,
    store_engine,
    target_of,
    writable_place,
    write_private,
)

Tell = Callable[[str, int, int], None]  # phase, steps done, steps in all


@dataclass(frozen=True)
class BuildSettings:
    """How the user wants engines built.

    workspace_mb: memory that the builder may use to try a kernel, 10^6 bytes; TensorRT's own limit where None. tf32:
    round float32 products to 10 bits, which is faster and changes the answer. batch: the most frames that segmenter and
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
    """One engine. fresh: built now and not found."""

    role: str
    engine: Path
    fresh: bool


class EngineBuilder:
    """Builds the engines of a bundle for one GPU of this machine, one timing cache for all."""

    def __init__(self, bundle: Bundle, settings: BuildSettings, device: int = 0) -> None:
        """Raises ProviderUnavailable where TensorRT, its CUDA bindings or the GPU of this number is absent."""
        self._tensorrt = load_tensorrt()
        cuda = Cuda(device)
        cuda.select()  # TensorRT builds for the calling thread's GPU
        self.target = target_of(self._tensorrt, cuda)
        self._logger, self._messages = logger_of(self._tensorrt)
        self._bundle, self._settings = bundle, settings
        self.roles = tuple(role for role, entry in bundle.manifest.models.items() if entry.file.endswith(".onnx"))

    def build(self, role: str, tell: Tell) -> Built:
        """Build one engine unless the place where it would be holds it already.

        Raises:
            BundleError: TensorRT does not take the graph, or the graph has an axis that no profile knows.
            NetworkError: TensorRT fails to build it.
            OutOfMemory: not even the builder's trials fit.
            MaskrtError: it cannot be written.
        """
        model = self._bundle.model_path(role)
        digest = model_sha256(model)
        network = _Network(self._tensorrt, self._logger, self._messages, model)
        recipe = Recipe(
            profile_of(self._bundle, role, network.shapes, self._settings.batch),
            self._settings.flags,
            self._settings.workspace_mb,
        )
        for place in places_of(model):
            if is_built(place, digest, self.target, recipe):
                return Built(role, place.engine, fresh=False)
        place = writable_place(model)  # before the minutes that a build takes
        plan = network.build(recipe, _timing_cache(place), tell)
        store_engine(place, plan.engine, digest, self.target, recipe)
        write_private({place.engine.with_name(TIMING_CACHE): plan.timings})
        return Built(role, place.engine, fresh=True)


@dataclass(frozen=True)
class _Plan:
    """A serialised engine, and the timing cache after it."""

    engine: bytes
    timings: bytes


class _Network:
    """A parsed ONNX file, strongly typed: every layer computes in the types that the file says."""

    def __init__(self, tensorrt: Any, logger: Any, messages: Messages, model: Path) -> None:
        self._tensorrt, self._messages, self._model = tensorrt, messages, model
        messages.clear()
        flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        self._builder = tensorrt.Builder(logger)
        self._network = self._builder.create_network(0 if flag is None else 1 << int(flag))
        self._parser = tensorrt.OnnxParser(self._network, logger)
        if not self._parser.parse_from_file(str(model)):
            errors = [self._parser.get_error(index) for index in range(self._parser.num_errors)]
            told = "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors)
            raise BundleError(
                f"TensorRT {tensorrt.__version__} does not take {model.name} ({told or 'no reason given'}): "
                "export the bundle again with this maskrt"
            )
        inputs = [self._network.get_input(index) for index in range(self._network.num_inputs)]
        self.shapes = {tensor.name: tuple(int(size) for size in tensor.shape) for tensor in inputs}
        for tensor in inputs:
            if tensor.dtype == tensorrt.DataType.UINT8:
                self._read_through_cast(tensor)

    def _read_through_cast(self, image: Any) -> None:
        """Let every layer that asks for the size of a uint8 input ask a float copy: TensorRT has only casts for uint8.

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
        """Time the kernels and write the engine. Raises NetworkError, OutOfMemory, or what `tell` has raised."""
        tensorrt = self._tensorrt
        config = self._builder.create_builder_config()
        if "TF32" not in recipe.flags:  # it is on in every new config
            config.clear_flag(tensorrt.BuilderFlag.TF32)
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
    """A monitor that tells of the outermost phases."""

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
            # Ctrl-C arrives in whatever Python runs, which is here; no exception may pass through TensorRT's own code.
            try:
                if phase_name in self._steps:
                    tell(phase_name, step + 1, self._steps[phase_name])
            except BaseException as error:
                self.error = error
            return self.error is None

    return Monitor()


def _timing_cache(place: Place) -> bytes:
    """What earlier builds have measured; empty where there is none."""
    try:
        return place.engine.with_name(TIMING_CACHE).read_bytes()
    except FileNotFoundError:
        return b""


def with_settings(bundle: Bundle, overrides: dict[str, Any]) -> Bundle:
    """The bundle with other settings: engines for what `maskrt run --set` or `maskrt refine` will ask for.

    Raises:
        BundleError: an unknown setting, or a value of the wrong type.
    """
    manifest = bundle.manifest
    sections = _sections(manifest)
    changed: dict[str, Any] = {}
    left = dict(overrides)
    for section in sections:
        spec = getattr(manifest, section)
        last = section == sections[-1]  # it refuses what none knows
        own = {name: left.pop(name) for name in tuple(left) if last or name in spec.__struct_fields__}
        changed[section] = with_overrides(spec, own)
    return replace(bundle, manifest=msgspec.structs.replace(manifest, **changed))


def _sections(manifest: Manifest) -> tuple[str, ...]:
    """Where a bundle's settings stand; an option is of the first one that knows it."""
    if isinstance(manifest, TwoStageManifest):
        return ("selection",)
    if not isinstance(manifest, SossManifest):
        return ("refine",)
    return ("refine", "voting", "masks") if manifest.two_stage is None else ("refine", "voting", "selection", "masks")
