"""Figures and plots that make bench writes besides the cases, and the demo."""
