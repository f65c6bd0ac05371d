"""Loaded models: ONNX Runtime, OpenVINO and TensorRT behind one protocol, Session."""
