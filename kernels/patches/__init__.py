"""What two-stage segmentation does with patches of a picture: scores, pixels, choice, and the way back into the map."""
