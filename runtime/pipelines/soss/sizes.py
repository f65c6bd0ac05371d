"""The sizes that a segmenter of one stage is run at."""

from maskrt.runtime.bundle.specs import SegmenterSpec
from maskrt.runtime.engines.axes import EVERY, Inputs


def segmenter_inputs(segmenter: SegmenterSpec) -> Inputs:
    """Return the sides of the picture: the only size it is run at, whatever a file allows."""
    height, width = segmenter.input_hw
    return {EVERY: {2: (height, height, height), 3: (width, width, width)}}
