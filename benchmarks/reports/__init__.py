"""Figures and plots that make bench writes beside the cases, and the demo."""
