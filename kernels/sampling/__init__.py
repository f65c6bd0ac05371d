"""Bilinear sampling of windows, corners aligned: what a tile sees of a picture or of a coarser map."""
