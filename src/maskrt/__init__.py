"""maskrt: trained segmentation models, exported once, run lean and verified on the machine that uses them."""

from maskrt.runtime.errors import MaskrtError
from maskrt.runtime.pipeline import open_pipeline

__all__ = ["MaskrtError", "__version__", "open_pipeline"]
__version__ = "0.1.0"
