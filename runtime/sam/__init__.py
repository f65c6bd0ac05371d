"""The Segment Anything Model: every mask of a picture, and its decoder."""
