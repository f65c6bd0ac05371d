"""SAM's mask decoder for many prompts of one image.

It is one graph, or the three graphs of maskrt.export.graphs.split_decoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats, Indices
from maskrt.runtime.bundle.specs import SamSpec
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.engines.device_tensor import DeviceTensor, Tensor
from maskrt.runtime.engines.loading import Sessions
from maskrt.runtime.engines.providers import provider_of
from maskrt.runtime.engines.session import Session, require_names
from maskrt.runtime.errors import BundleError, InputError, NetworkError

Tensors = Mapping[str, Tensor]  # on the host, or on the GPU of the engine that made them

SPLIT_DECODER = ("image_side", "token_side", "upscale")  # roles of SplitDecoder's graphs, in its order
MASKS_PER_POINT = 3  # SAM's multimask outputs: whole, part, subpart
# A GPU runs one call after the other: a few workers keep it busy while the others measure masks. A worker for every
# core would hold an execution context with its memory, and would mostly wait.
GPU_WORKERS = 4


@dataclass(frozen=True)
class Prompted:
    """The decoder's answer to B prompts: pred_iou float32 [B, 3], and the state that `masks` needs to draw the masks.

    The state of an engine on a GPU holds memory there until the object is dropped.
    """

    pred_iou: Floats
    state: Mapping[str, Any]


class MaskDecoder(Protocol):
    """A decoder takes the embedding once and prompts in batches, and draws the masks that are wanted."""

    @property
    def batch(self) -> int | None:
        """Prompts per call at which it is fastest; None where it does not matter."""

    @property
    def workers(self) -> int:
        """Threads that may call it at the same time, and should."""

    def prepare(self, embeddings: Tensor) -> Tensors:
        """Return the tensors that all prompts of an image share.

        Args:
            embeddings: float32 [1, C, e, e], on the host or where the encoder left them.
        """

    def prompt(self, image: Tensors, coords: Floats, labels: Floats) -> Prompted: ...

    def masks(self, image: Tensors, prompted: Prompted, wanted: NDArray[np.bool_]) -> tuple[Indices, Floats]:
        """Return the low-res masks that are wanted.

        Args:
            wanted: bool [B, 3].

        Returns:
            Flat indices into `wanted`, int64 [M], ascending, and their masks, float32 [M, l, l], C-contiguous.
        """


class WholeDecoder:
    """A decoder in one graph, which draws all three masks of every prompt and takes masks as prompts too.

    The graph maps `image_embeddings` float32 [1, C, e, e], `point_coords` [B, P, 2] (x, y in pixels of the encoder's
    image), `point_labels` [B, P] (1 foreground, 0 background, 2 and 3 corners of a box, -1 padding), `mask_input`
    [M, 1, l, l] (logits; M is 1 or B) and `has_mask_input` [1] (1 or 0) to `low_res_masks` [B, 3, l, l] and `pred_iou`
    [B, 3].
    """

    batch: int | None = None
    workers = 1  # the engine's own threads share the work of a large batch

    def __init__(self, decoder: Session, sam: SamSpec) -> None:
        """Raise BundleError unless the graph has the names above."""
        inputs = {"image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input"}
        require_names(decoder, "decoder", inputs, {"low_res_masks", "pred_iou"})
        self._decoder = decoder
        self._low_res_hw = sam.low_res_hw
        self._no_mask = no_mask(sam.low_res_hw)

    def prepare(self, embeddings: Tensor) -> Tensors:
        """Return the embeddings as they are: this graph prepares nothing."""
        return {"image_embeddings": embeddings}

    def prompt(self, image: Tensors, coords: Floats, labels: Floats, *, mask_input: Floats | None = None) -> Prompted:
        """Return the predicted IoUs; this graph draws the masks at once, too.

        Args:
            mask_input: low-res logits such as `masks` returns, float32 [1, 1, l, l] for all prompts or [B, 1, l, l],
                one for each. Prompts may then have no points: coords [B, 0, 2] and labels [B, 0].

        Raises:
            InputError: a mask of another shape or type, or with NaN or infinity in it.
        """
        mask = self._no_mask
        if mask_input is not None:
            _check_mask(mask_input, len(coords), self._low_res_hw)
            mask = {"mask_input": mask_input, "has_mask_input": np.ones(1, np.float32)}
        outputs = self._decoder.run({**image, "point_coords": coords, "point_labels": labels, **mask})
        found = outputs["low_res_masks"].shape, outputs["pred_iou"].shape
        _check_shapes("decoder", found, (_mask_shape(len(coords), self._low_res_hw), (len(coords), MASKS_PER_POINT)))
        return Prompted(outputs["pred_iou"], {"low_res_masks": outputs["low_res_masks"]})

    def masks(self, image: Tensors, prompted: Prompted, wanted: NDArray[np.bool_]) -> tuple[Indices, Floats]:
        """Return the wanted masks, which `prompt` has drawn already; see MaskDecoder."""
        indices = np.flatnonzero(wanted)
        return indices, prompted.state["low_res_masks"].reshape(-1, *self._low_res_hw)[indices]


class SplitDecoder:
    """A decoder in three graphs, which draws the wanted masks only.

    `image_side` computes what all prompts share: it maps `image_embeddings` to shared tensors, which the other two
    graphs take by name. `token_side` computes what each prompt adds: it maps the shared tensors, `point_coords` and
    `point_labels` to `pred_iou`, `kernels` [B, 3, c] and the state. `upscale` draws masks: it maps shared tensors,
    state and `kernels` [B, k, c] to `low_res_masks` [B, k, l, l].
    """

    batch: int | None = 4  # a prompt adds 2 MB to the image at ViT-B's size, and larger calls do not fit the caches

    def __init__(
        self, image_side: Session, token_side: Session, upscale: Session, sam: SamSpec, workers: int = 1
    ) -> None:
        """Raise BundleError unless the graphs fit together.

        Args:
            workers: threads that will call this decoder; token_side and upscale should then have one thread each,
                since their operators are too small to share.
        """
        shared = set(image_side.outputs)
        require_names(image_side, "image_side", {"image_embeddings"}, set())
        require_names(token_side, "token_side", {"point_coords", "point_labels"}, {"pred_iou", "kernels"})
        require_names(upscale, "upscale", {"kernels"}, {"low_res_masks"})
        missing = set(token_side.inputs) - shared - {"point_coords", "point_labels"}
        missing |= set(upscale.inputs) - shared - set(token_side.outputs)
        if missing:
            raise BundleError(f"no graph of the decoder gives {', '.join(sorted(missing))}: export the bundle again")
        self._image_side, self._token_side, self._upscale = image_side, token_side, upscale
        self.workers = workers
        self._low_res_hw = sam.low_res_hw
        self._state = [name for name in token_side.outputs if name in upscale.inputs]

    def prepare(self, embeddings: Tensor) -> Tensors:
        """Return the tensors that all prompts of the image share."""
        return self._image_side.run({"image_embeddings": embeddings}, keep_on_device=self._image_side.outputs)

    def prompt(self, image: Tensors, coords: Floats, labels: Floats) -> Prompted:
        """Return the predicted IoUs; no mask is drawn."""
        feeds = {name: image[name] for name in self._token_side.inputs if name in image}
        # The state is not checked for NaN: pred_iou and the masks are computed from it, and they are checked.
        feeds |= {"point_coords": coords, "point_labels": labels}
        outputs = self._token_side.run(feeds, check=("pred_iou",), keep_on_device=self._state)
        _check_shapes("decoder", (outputs["pred_iou"].shape,), ((len(coords), MASKS_PER_POINT),))
        return Prompted(outputs["pred_iou"], {name: outputs[name] for name in self._state})

    def masks(self, image: Tensors, prompted: Prompted, wanted: NDArray[np.bool_]) -> tuple[Indices, Floats]:
        """Draw the wanted masks only, prompt by prompt; see MaskDecoder."""
        shared = {name: image[name] for name in self._upscale.inputs if name in image}
        indices = np.flatnonzero(wanted)
        low_res = np.empty((indices.size, *self._low_res_hw), np.float32)
        drawn = 0
        for prompt in np.flatnonzero(wanted.any(axis=1)):
            ranks = np.flatnonzero(wanted[prompt])
            state = {name: prompted.state[name][prompt : prompt + 1] for name in self._state}
            state["kernels"], places = _kernels_of(state["kernels"], ranks)
            masks = self._upscale.run({**shared, **state})["low_res_masks"]
            _check_shapes("decoder", (masks.shape,), ((1, state["kernels"].shape[1], *self._low_res_hw),))
            low_res[drawn : drawn + ranks.size] = masks[0, places]
            drawn += ranks.size
        return indices, low_res


def open_decoder(sessions: Sessions, sam: SamSpec, split: bool = True) -> MaskDecoder:
    """Load the decoder of a bundle.

    Args:
        sessions: the bundle's; their number of threads is the number for the whole decoder, None means every core.
        split: use the three graphs where the bundle has them. The answer is the same, but only the single graph,
            WholeDecoder, takes a mask as a prompt.

    Raises:
        BundleError: a graph is missing or does not fit the others.
        ProviderUnavailable: see open_session.
    """
    if not (split and set(SPLIT_DECODER) & set(sessions.bundle.manifest.models)):
        return WholeDecoder(sessions.load("decoder", repeated=True), sam)
    shared, *each = SPLIT_DECODER
    workers = sessions.threads or usable_cpus()
    if provider_of(sessions.provider).on_gpu:
        workers = min(workers, GPU_WORKERS)
    token_side, upscale = (sessions.load(role, threads=1, callers=workers, repeated=True) for role in each)
    return SplitDecoder(sessions.load(shared, repeated=True), token_side, upscale, sam, workers)


def _kernels_of(kernels: Tensor, ranks: Indices) -> tuple[Tensor, Indices | slice]:
    """Return the kernels [1, k, c] to draw for a prompt, and the places of the wanted ranks among the k masks.

    A GPU draws all three masks: nothing has to be gathered there, and with constant shapes an engine can launch its
    work as a whole. A CPU takes a sixth longer for three masks than for one, so it draws the wanted ones only.
    """
    if isinstance(kernels, DeviceTensor):
        return kernels, ranks
    return kernels[:, ranks], slice(None)


def no_mask(low_res_hw: tuple[int, int]) -> Tensors:
    """Return WholeDecoder's `mask_input` and `has_mask_input` for prompts without a mask."""
    return {"mask_input": np.zeros((1, 1, *low_res_hw), np.float32), "has_mask_input": np.zeros(1, np.float32)}


def _check_mask(mask: Floats, prompts: int, low_res_hw: tuple[int, int]) -> None:
    height, width = low_res_hw
    if mask.dtype != np.float32 or mask.shape not in ((1, 1, height, width), (prompts, 1, height, width)):
        raise InputError(
            f"mask_input is {mask.dtype} {list(mask.shape)}: give low-res logits, float32 [1, 1, {height}, {width}] "
            f"for all prompts or [{prompts}, 1, {height}, {width}], one for each"
        )
    if not np.isfinite(mask).all():
        raise InputError("mask_input holds NaN or infinity: give finite logits")


def _mask_shape(prompts: int, low_res_hw: tuple[int, int]) -> tuple[int, ...]:
    return prompts, MASKS_PER_POINT, *low_res_hw


def _check_shapes(role: str, found: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    if found != expected:
        raise NetworkError(
            f"the {role} returned {' and '.join(map(str, found))}, "
            f"the bundle declares {' and '.join(map(str, expected))}: export again"
        )
