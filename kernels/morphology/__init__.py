"""Contours of masks, what lies near them, and what lies deeper inside."""
