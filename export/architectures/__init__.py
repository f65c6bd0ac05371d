"""Networks in PyTorch, with the keys of their public checkpoints."""
