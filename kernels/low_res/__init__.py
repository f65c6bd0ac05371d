"""Measures of SAM's masks at full size, from logits at a quarter of the encoder's resolution, without making them."""

from maskrt.kernels.low_res.cpu import mask_counts, measure_masks
from maskrt.kernels.low_res.reference import window_of
from maskrt.kernels.low_res.types import Placement, Window

__all__ = ["Placement", "Window", "mask_counts", "measure_masks", "window_of"]
