"""Bilinear resizing, equal to `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`."""

from maskrt.kernels.resample.cpu import resize_bilinear

__all__ = ["resize_bilinear"]
