"""PyTorch checkpoints become ONNX bundles here, checked for parity before they count (extra `export`)."""
