"""Walks the entropy-coded data of one scan of a JPEG without decoding a pixel, to find what a decoder would fill in.

It has no CUDA version: the bits of a scan depend on each other, one after the other.
"""
