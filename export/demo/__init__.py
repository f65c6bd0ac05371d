"""The demo models: a small DeepLabV3+ and a small SAM, trained on procedural bedside scenes."""
