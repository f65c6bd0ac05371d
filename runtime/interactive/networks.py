"""The three networks of an interactive bundle: encoder, click decoder, and the step by which the decoder learns."""

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

MASKS = 4  # of a prompt: the single one, then the three of an ambiguous click
PROMPT = ("point_coords", "point_labels", "mask_input", "has_mask_input")


@dataclass(frozen=True)
class ClickNetworks(Closeable):
    """encoder: image uint8 [1, h, w, 3] -> image_embeddings float32 [1, C, e, e].

    decoder: image_embeddings, point_coords [1, P, 2], point_labels [1, P], mask_input [1, 1, l, l], has_mask_input [1],
    and every weight by its name -> low_res_masks [4, l, l], pred_iou [4]. step: see maskrt.runtime.interactive.learning.
    kept: what the encoder leaves on its device, since both others compute there. sessions: what closes all three.
    """

    encoder: Session
    decoder: ClickDecoder
    step: Session
    kept: tuple[str, ...]
    sessions: Closeable

    def require(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Raises BundleError unless the networks have those names, and take these weights."""
        require_names(self.encoder, "encoder", {"image"}, {"image_embeddings"})
        prompt = {"image_embeddings", *PROMPT}
        require_names(self.decoder.session, "click_decoder", prompt, {"low_res_masks", "pred_iou"})
        kinds = ("", FIRST, SECOND)
        learnt = {kind + name for kind in kinds for name in weights}
        require_names(self.step, "step", {*learnt, *prompt, *STEP_INPUTS}, {*(NEXT + name for name in learnt), *_LOSS})
        self.decoder.require(weights)

    @property
    def embedding_shape(self) -> tuple[int, ...]:
        """Of an image: (1, C, e, e).

        Raises:
            BundleError: the click decoder does not say it.
        """
        shape = self.decoder.session.inputs["image_embeddings"][1]
        if (sizes := [size for size in shape if size is not None]) and len(sizes) == len(shape) == 4:
            return tuple(sizes)
        raise BundleError(f"the click_decoder takes embeddings {list(shape)} of no fixed size: export the bundle again")

    def embed(self, rgb: NDArray[np.uint8], input_hw: tuple[int, int]) -> Tensor:
        """The embedding of an image resized to the encoder's size, float32 [1, C, e, e], where the encoder leaves it.

        Raises:
            NetworkError: the encoder failed, or returned NaN, infinity or another shape.
        """
        # Pillow, as upstream: its antialiased uint8 resampling in the graph would not be equal.
        resized = np.array(Image.fromarray(rgb).resize(input_hw[::-1], Image.Resampling.BILINEAR))
        embedding: Tensor = self.encoder.run({"image": resized[None]}, keep_on_device=self.kept)["image_embeddings"]
        if tuple(embedding.shape) != self.embedding_shape:
            raise NetworkError(
                f"the encoder returned {list(embedding.shape)}, the click_decoder takes {list(self.embedding_shape)}: "
                "export the bundle again"
            )
        return embedding

    def ask(self, weights: Tensors, feeds: Tensors) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """low_res_masks float32 [4, l, l] and pred_iou float32 [4] of a prompt, with the weights given.

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
        """Free the three."""
        self.sessions.close()


_LOSS = ("loss", "gradient_norm")


def open_networks(bundle: Bundle, provider: str, threads: int | None) -> ClickNetworks:
    """Load the networks of an interactive bundle.

    OpenVINO, whose graphs keep their weights, runs the encoder alone; TensorRT, whose engines can be given others, the
    click decoder too. What they do not run is on the CPU, the step above all: its weights are what it changes.

    Raises:
        InputError: the provider cannot run a decoder that learns.
        ProviderUnavailable, BundleError, OutOfMemory: as open_session.
    """
    row = provider_of(provider)
    if row.on_gpu and row.weights == "fixed":
        raise InputError(
            f"{provider} builds weights into its engines, and takes none that change with every click: "
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
            # Else on the host, from where the 4 MB of SAM's go up with every prompt: fewer than those of its weights.
            kept=("image_embeddings",) if learns == provider else (),
            sessions=sessions,
        )
