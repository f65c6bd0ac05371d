"""Contours of masks, and what lies near them."""
