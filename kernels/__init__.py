"""Numba kernels, one folder per family: `reference.py` defines the answer, `cpu.py` has the same signature."""
