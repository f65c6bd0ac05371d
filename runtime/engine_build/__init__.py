"""Builds TensorRT engines of a bundle, for the sizes that its pipeline uses."""
