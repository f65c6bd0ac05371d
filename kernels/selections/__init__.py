"""Kernels that settle which pixels a refiner decodes."""
