"""The three networks of an interactive bundle: the encoder, the click decoder, and the decoder's training step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.closeable import Closeable
from maskrt.runtime.engines.device_tensor import Tensor
from maskrt.runtime.engines.loading import Sessions
from maskrt.runtime.engines.providers import TENSORRT, provider_of
from maskrt.runtime.engines.session import Session, require_names
from maskrt.runtime.errors import BundleError, InputError, NetworkError
from maskrt.runtime.interactive.decoder import ClickDecoder, WeightsAsInputs, WeightsByRefit
from maskrt.runtime.interactive.learning import FIRST, NEXT, SECOND, STEP_INPUTS, Tensors

MASKS = 4  # masks of a prompt: the single one, then the three of an ambiguous click
PROMPT = ("point_coords", "point_labels", "mask_input", "has_mask_input")


@dataclass(frozen=True)
class ClickNetworks(Closeable):
    """The three networks, loaded.

    encoder: image uint8 [1, h, w, 3] -> image_embeddings float32 [1, C, e, e]. decoder: image_embeddings, point_coords
    [1, P, 2], point_labels [1, P], mask_input [1, 1, l, l], has_mask_input [1], and every weight by its name ->
    low_res_masks [4, l, l], pred_iou [4]. step: see maskrt.runtime.interactive.learning. kept: outputs that the encoder
    leaves on its device, since both others compute there. sessions: closes all three.
    """

    encoder: Session
    decoder: ClickDecoder
    step: Session
    kept: tuple[str, ...]
    sessions: Closeable

    def require(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Raise BundleError unless the networks have these inputs and outputs, and take these weights."""
        require_names(self.encoder, "encoder", {"image"}, {"image_embeddings"})
        prompt = {"image_embeddings", *PROMPT}
        require_names(self.decoder.session, "click_decoder", prompt, {"low_res_masks", "pred_iou"})
        kinds = ("", FIRST, SECOND)
        learnt = {kind + name for kind in kinds for name in weights}
        require_names(self.step, "step", {*learnt, *prompt, *STEP_INPUTS}, {*(NEXT + name for name in learnt), *_LOSS})
        self.decoder.require(weights)

    @property
    def embedding_shape(self) -> tuple[int, ...]:
        """Shape of an image's embedding: (1, C, e, e).

        Raises:
            BundleError: the click decoder leaves it open.
        """
        shape = self.decoder.session.inputs["image_embeddings"][1]
        if (sizes := [size for size in shape if size is not None]) and len(sizes) == len(shape) == 4:
            return tuple(sizes)
        raise BundleError(
            f"the click_decoder takes embeddings {list(shape)} without a fixed size: export the bundle again"
        )

    def embed(self, rgb: NDArray[np.uint8], input_hw: tuple[int, int]) -> Tensor:
        """Resize an image to the encoder's size and return its embedding, float32 [1, C, e, e].

        The embedding stays where the encoder leaves it.

        Raises:
            NetworkError: the encoder failed, or returned NaN, infinity or another shape.
        """
        # Pillow, as upstream: a graph could not repeat its antialiased uint8 resampling exactly.
        resized = np.array(Image.fromarray(rgb).resize(input_hw[::-1], Image.Resampling.BILINEAR))
        embedding: Tensor = self.encoder.run({"image": resized[None]}, keep_on_device=self.kept)["image_embeddings"]
        if tuple(embedding.shape) != self.embedding_shape:
            raise NetworkError(
                f"the encoder returned {list(embedding.shape)}, the click_decoder takes {list(self.embedding_shape)}: "
                "export the bundle again"
            )
        return embedding

    def ask(self, weights: Tensors, feeds: Tensors) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return low_res_masks float32 [4, l, l] and pred_iou float32 [4] of a prompt, with the given weights.

        Raises:
            NetworkError: the decoder failed, or returned NaN, infinity or another shape.
        """
        outputs = self.decoder.run(weights, feeds)
        masks, pred_iou = outputs["low_res_masks"], outputs["pred_iou"]
        side = feeds["mask_input"].shape[-1]
        if masks.shape != (MASKS, side, side) or pred_iou.shape != (MASKS,):
            raise NetworkError(
                f"the click_decoder returned {list(masks.shape)} and {list(pred_iou.shape)}, not "
                f"[{MASKS}, {side}, {side}] and [{MASKS}]: export the bundle again"
            )
        return masks, pred_iou

    def close(self) -> None:
        """Free the three networks."""
        self.sessions.close()


_LOSS = ("loss", "gradient_norm")


def open_networks(bundle: Bundle, provider: str, threads: int | None) -> ClickNetworks:
    """Load the networks of an interactive bundle.

    OpenVINO runs the encoder only, since its graphs keep their weights. TensorRT runs the click decoder too, since its
    engines can be given other weights. With both, the training step runs on the CPU, since it changes the weights.

    Raises:
        InputError: the provider cannot run a decoder that learns.
        ProviderUnavailable, BundleError, OutOfMemory: see open_session.
    """
    row = provider_of(provider)
    if row.on_gpu and row.weights == "fixed":
        raise InputError(
            f"{provider} builds weights into its engines, so they cannot change with every click: "
            f"use --provider {TENSORRT} or cuda"
        )
    decodes = "cpu" if row.weights == "fixed" else provider
    learns = provider if row.weights == "inputs" else "cpu"
    taking: Callable[[Any], ClickDecoder] = WeightsByRefit if row.weights == "refit" else WeightsAsInputs
    with Sessions(bundle, provider, threads).loading() as sessions:
        return ClickNetworks(
            sessions.load("encoder"),
            taking(sessions.load("click_decoder", provider=decodes, repeated=True)),
            sessions.load("step", provider=learns, repeated=True),
            # Otherwise on the host: SAM's 4 MB are then uploaded with every prompt, less than its weights.
            kept=("image_embeddings",) if learns == provider else (),
            sessions=sessions,
        )
