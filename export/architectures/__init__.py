"""Networks in PyTorch, as their public checkpoints have them."""
