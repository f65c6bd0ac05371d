"""What SAM's masks at a quarter of the encoder's resolution are at full size, without making them."""

from maskrt.kernels.low_res.cpu import mask_counts, measure_masks
from maskrt.kernels.low_res.reference import Placement, Window, window_of

__all__ = ["Placement", "Window", "mask_counts", "measure_masks", "window_of"]
