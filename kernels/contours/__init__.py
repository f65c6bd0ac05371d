"""The outlines of a mask's regions."""

from maskrt.kernels.contours.cpu import outer_contours

__all__ = ["outer_contours"]
