"""What one mask at full size is asked: pixels above a threshold, its box and its run lengths."""

from maskrt.kernels.mask_stats.cpu import box_and_counts, count_above

__all__ = ["box_and_counts", "count_above"]
