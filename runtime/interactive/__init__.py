"""Interactive segmentation: clicks give masks, and the mask decoder learns from both."""
