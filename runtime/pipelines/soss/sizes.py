"""The sizes at which a segmenter of one stage runs."""

from maskrt.runtime.bundle.specs import SegmenterSpec
from maskrt.runtime.engines.axes import EVERY, Inputs


def segmenter_inputs(segmenter: SegmenterSpec) -> Inputs:
    """Return the sides of the picture: it runs at this size only, whatever the file allows."""
    height, width = segmenter.input_hw
    return {EVERY: {2: (height, height, height), 3: (width, width, width)}}
