"""Tools that read, convert, count and check ONNX files."""
