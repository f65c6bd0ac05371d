"""Numba kernels, one folder per family.

`reference.py` defines the answer in plain NumPy; `cpu.py` and `cuda.py` have the same signatures. `types.py` holds the
classes that they share. `sets.py` gathers them into sets to choose from; where a family lacks an implementation, the set
holds another one of it.
"""
