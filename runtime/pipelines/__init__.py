"""Pipelines turn frames into results; each kind has its own folder."""
