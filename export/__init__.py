"""PyTorch checkpoints to ONNX bundles, checked for parity before they count as exported (extra `export`)."""
