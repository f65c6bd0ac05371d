"""Interactive segmentation: clicks in, masks out, and a mask decoder that learns from both."""
