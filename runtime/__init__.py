"""Bundles, sessions and pipelines: NumPy, one inference engine and the kernels. No PyTorch, no onnx."""
