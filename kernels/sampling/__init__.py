"""Bilinear sampling of windows with aligned corners: a tile sees a picture or a coarser map through it."""
