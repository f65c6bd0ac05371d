"""Kernels for the patches of two-stage segmentation: scores, pixels, choice, and the way back into the map."""
