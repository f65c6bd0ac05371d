"""Drawn scenes with exact truth: a bedside, and things that no demo model has seen."""
