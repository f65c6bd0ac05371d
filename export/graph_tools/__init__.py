"""ONNX files read, converted, counted and checked."""
