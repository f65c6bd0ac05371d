"""SOSS as built in an afternoon: the three networks are exported to ONNX, and everything around them stays.

ONNX Runtime runs the segmenter, SAM's encoder and its decoder in one graph with a batched prompt axis;
segment_anything's generator prompts, upsamples and filters in PyTorch, and voting is dense NumPy.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import torch

from maskrt.benchmarks.peers.sam_upstream import upstream_generator
from maskrt.benchmarks.peers.soss_upstream import SossUpstream
from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.bundle.manifest import SossManifest
from maskrt.runtime.bundle.specs import MasksSpec
from maskrt.runtime.sam.mask_decoder import Tensors, no_mask


def onnxruntime_loop(bundle: Bundle, sam: Any, masks: MasksSpec, threads: int) -> SossUpstream:
    """Make the peer from a bundle's graphs.

    Args:
        bundle: opened.
        sam: the bundle's segment_anything Sam; its networks are dropped, and the code around them is used.
        masks: the settings.
        threads: of every session.
    """

    def session(role: str) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(bundle.model_path(role), options, providers=["CPUExecutionProvider"])

    manifest = bundle.expect(SossManifest)
    size, segmenter = sam.image_encoder.img_size, session("segmenter")
    (segmenter_input,) = (value.name for value in segmenter.get_inputs())
    del sam.image_encoder, sam.mask_decoder  # their weights would count as this peer's memory
    sam.image_encoder = SimpleNamespace(img_size=size)
    generator = upstream_generator(sam, masks)
    generator.predictor = _predictor(sam, session("encoder"), session("decoder"), no_mask(manifest.sam.low_res_hw))

    def logits(image: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(segmenter.run(None, {segmenter_input: image.numpy()})[0])

    return SossUpstream(logits, generator, manifest)


def _predictor(
    sam: Any, encoder: onnxruntime.InferenceSession, decoder: onnxruntime.InferenceSession, mask: Tensors
) -> Any:
    """Make a SamPredictor whose two network calls go to ONNX Runtime. mask: the decoder's inputs for a mask."""
    from maskrt.benchmarks.peers.sam_upstream import torchvision_or_stand_ins

    with torchvision_or_stand_ins():
        from segment_anything.predictor import SamPredictor

    class Predictor(SamPredictor):  # type: ignore[misc]  # segment_anything has no types
        def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
            self.reset_image()
            small = self.transform.apply_image(image)
            self.original_size, self.input_size = image.shape[:2], small.shape[:2]
            self.features = encoder.run(["image_embeddings"], {"image": small[None]})[0]
            self.is_image_set = True

        def predict_torch(
            self, point_coords: torch.Tensor, point_labels: torch.Tensor, return_logits: bool = False, **_: Any
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            no_box = torch.zeros(len(point_coords), 1, 2), -torch.ones(len(point_coords), 1)
            feeds = {
                "image_embeddings": self.features,
                "point_coords": torch.cat([point_coords, no_box[0]], 1).float().numpy(),
                "point_labels": torch.cat([point_labels, no_box[1]], 1).float().numpy(),
                **mask,
            }
            low_res, pred_iou = map(torch.from_numpy, decoder.run(["low_res_masks", "pred_iou"], feeds))
            masks = self.model.postprocess_masks(low_res, self.input_size, self.original_size)
            return masks if return_logits else masks > self.model.mask_threshold, pred_iou, low_res

    return Predictor(sam)
