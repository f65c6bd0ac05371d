"""Kernels that measure how deep inside a mask its pixels lie."""
