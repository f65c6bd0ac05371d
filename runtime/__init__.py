"""Bundles, sessions and pipelines. They need NumPy, one inference engine and the kernels; no PyTorch, no onnx."""
