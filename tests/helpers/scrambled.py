"""Weights for tests: random, and none of them without effect."""

from typing import Any


def scrambled_weights(module: Any, seed: int = 0) -> Any:
    """Add noise to every weight of a PyTorch module, in place, and put it in evaluation mode."""
    import torch

    random = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=random)
        elif value.dtype == torch.float32:
            value.add_(torch.randn(value.shape, generator=random) * 0.05)
    return module.eval()
