"""Advises users on regions of interest."""

from maskrt.cli.say import say
from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.io.regions import RoiOf
from maskrt.runtime.types import Roi


def advise_regions(bundle: Bundle, region: Roi | RoiOf | None) -> None:
    """Warn on stderr if a bundle whose models were trained on regions of interest gets whole frames."""
    if region is None and getattr(bundle.manifest, "roi_expected", False):
        say(
            f"{bundle.path} was made for regions of interest, and whole frames give poorer masks: "
            "name the region with --roi or --roi-from",
            err=True,
        )
