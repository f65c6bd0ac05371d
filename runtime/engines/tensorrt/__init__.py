"""TensorRT's own engines: sessions, memory, files and new weights for them."""
