"""Two-stage segmentation: a second network looks again where the first is uncertain."""
