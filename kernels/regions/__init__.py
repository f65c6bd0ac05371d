"""Filling small holes and dropping small islands of a mask."""

from maskrt.kernels.regions.cpu import remove_small_regions

__all__ = ["remove_small_regions"]
