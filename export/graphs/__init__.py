"""Modules that become one ONNX graph each."""
