"""maskrt: trained segmentation models, exported once, run lean and verified on the machine that uses them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskrt.runtime.errors import MaskrtError
    from maskrt.runtime.interactive.session import open_interactive
    from maskrt.runtime.pipelines.open import open_pipeline

__all__ = ["MaskrtError", "__version__", "open_interactive", "open_pipeline"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Lazy, so that `maskrt --help` does not load Numba.
    if name == "open_pipeline":
        from maskrt.runtime.pipelines.open import open_pipeline

        return open_pipeline
    if name == "open_interactive":
        from maskrt.runtime.interactive.session import open_interactive

        return open_interactive
    if name == "MaskrtError":
        from maskrt.runtime.errors import MaskrtError

        return MaskrtError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
