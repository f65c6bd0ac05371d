"""Frames in and results out: images, videos, regions of interest, and the files of a run."""
