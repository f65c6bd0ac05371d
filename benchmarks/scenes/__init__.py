"""Drawn scenes with exact truth: bedsides, and things that no demo model has seen."""
