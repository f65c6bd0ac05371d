"""Numba kernels, one folder per family.

`reference.py` defines the answer in plain NumPy; `cpu.py` and `cuda.py` have the same signatures. `types.py` holds the
classes that they share. `sets.py` gathers kernels into sets to choose from; a family that lacks an implementation is in
a set with another one.
"""
