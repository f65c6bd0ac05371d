"""Pipelines: frames in, results out, one room for each kind."""
