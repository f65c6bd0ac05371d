"""Statistics of one mask at full size: its box and its run lengths."""

from maskrt.kernels.mask_stats.cpu import box_and_counts

__all__ = ["box_and_counts"]
