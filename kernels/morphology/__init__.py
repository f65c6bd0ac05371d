"""Kernels for what lies near a mask's contour, and for what lies deeper inside the mask."""
