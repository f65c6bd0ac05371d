"""Sessions of ONNX Runtime."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from maskrt.runtime.engines.binding import Binding
from maskrt.runtime.engines.device_tensor import Tensor
from maskrt.runtime.engines.model_file import Entry, read_model
from maskrt.runtime.engines.onnxruntime_options import DEVICE_MEMORY, require_loaded, require_offered, with_options
from maskrt.runtime.engines.session import Array, BaseSession, Ports, first_line, lacks_memory, out_of_memory
from maskrt.runtime.errors import BundleError, ProviderUnavailable

NO_DEVICE = ("cuda failure", "cudnn failure", "cublas failure")


class OnnxRuntimeSession(BaseSession):
    """An ONNX file in ONNX Runtime on one provider, and on one GPU where the provider uses GPUs."""

    def __init__(
        self,
        path: Path,
        provider: str = "cpu",
        threads: int | None = None,
        repeated: bool = False,
        device: int = 0,
        entry: Entry | None = None,
    ) -> None:
        import onnxruntime  # imported here so that the package imports where no engine is installed

        require_offered(provider, onnxruntime)
        providers = with_options(provider, device, path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors reach the caller as exceptions; warnings are for exporters
        # Threads that spin while they wait take the cores from whatever runs between two networks.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Memory planned for a shape is one block, on top of what earlier shapes have left; without a plan a run reuses
        # what it can. Against no arena, the first run of CRM's backbone takes half the time and 0.6 of the peak.
        options.enable_mem_pattern = False
        self._run_options = onnxruntime.RunOptions()
        if not repeated:  # hand memory back after the run; the decoder, which runs hundreds of times, takes longer then
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        if threads is not None:
            options.intra_op_num_threads = threads
        file = read_model(path, entry)
        if file.external:
            sizes = [len(content) for content in file.external.values()]
            options.add_external_initializers_from_files_in_memory([*file.external], [*file.external.values()], sizes)
        try:
            # With fallback, ONNX Runtime goes on by itself with other providers when one fails, now or in a run.
            self._session: Any = onnxruntime.InferenceSession(
                file.model, options, providers=providers, enable_fallback=False
            )
        except Exception as error:  # onnxruntime has no common base class for its errors
            if lacks_memory(error):
                raise out_of_memory(path.name, error) from error
            if any(sign in str(error).lower() for sign in NO_DEVICE):
                raise ProviderUnavailable(
                    f"{provider} requested, its device {device} does not work: {first_line(error)}: run maskrt doctor"
                ) from error
            raise BundleError(f"{path.name} cannot be loaded by ONNX Runtime: {first_line(error)}") from error
        require_loaded(provider, self._session)
        self._binding: Binding | None = None
        if provider in DEVICE_MEMORY:
            self._binding = Binding(self._session, self._run_options, DEVICE_MEMORY[provider], device)
            self.place = self._binding.place
        inputs, outputs = _ports(self._session.get_inputs()), _ports(self._session.get_outputs())
        super().__init__(path.name, inputs, outputs, _ports(self._session.get_overridable_initializers()))

    def _infer(self, feeds: Mapping[str, Tensor], keep_on_device: Collection[str]) -> Sequence[Tensor]:
        if self._binding is not None:
            return self._binding.run(feeds, self.outputs, keep_on_device)
        values: list[Array] = self._session.run(None, dict(feeds), self._run_options)
        return values

    def close(self) -> None:
        """Free the model's memory. Remaining device tensors keep theirs, and with it the session's arena."""
        super().close()
        self._session = self._binding = None


def _ports(nodes: Any) -> Ports:
    return {
        node.name: (node.type, tuple(size if isinstance(size, int) else None for size in node.shape)) for node in nodes
    }
