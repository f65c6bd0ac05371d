"""Draws pictures that compare masks side by side; they contain the image itself."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from maskrt.runtime.evaluation.compare import STAGES, MethodsComparison, StagesComparison
from maskrt.runtime.io.overlay import framed, segments_picture
from maskrt.runtime.region import fit_size_hw

STAGE_CAPTIONS = ("input", "truth", "stage 1", "both stages", "looked at again")
CAPTIONS = ("input", "truth", "SAM segments", "segmenter alone", "SOSS")
MARGIN = 6
CAPTION_HEIGHT = 26
TALLEST = 4  # largest height of a panel, in widths


def comparison(compared: MethodsComparison, panel_width: int = 360) -> NDArray[np.uint8]:
    """Draw a row of panels: input, truth, SAM's segments, the segmenter's mask, SOSS's mask.

    Source: the layout of figure 8 of the SOSS document.
    """
    panels = (
        compared.rgb,
        _white(compared.truth),
        segments_picture(compared.branches.segments),
        _white(compared.masks["segmenter"]),
        _white(compared.masks["soss"]),
    )
    return row(panels, CAPTIONS, panel_width)


def stages_comparison(compared: StagesComparison, panel_width: int = 360) -> NDArray[np.uint8]:
    """Draw a row of panels: input, truth, stage 1's mask, both stages' mask, and what stage 2 looked at again."""
    panels = (
        compared.rgb,
        _white(compared.truth),
        *(_white(compared.masks[name]) for name in STAGES),
        framed(compared.rgb, compared.stages.windows_xywh),
    )
    return row(panels, STAGE_CAPTIONS, panel_width)


def row(panels: Sequence[NDArray[np.uint8]], captions: Sequence[str], panel_width: int = 360) -> NDArray[np.uint8]:
    """Draw panels of one size side by side, with captions; each is `panel_width` pixels wide, or less if it is tall."""
    shape = panels[0].shape
    # Without a bound, a region of 2 x 4000 pixels would make a sheet of 4 GB.
    panel_height, scaled_width = fit_size_hw((shape[0], shape[1]), (TALLEST * panel_width, panel_width))
    size = (len(panels) * (panel_width + MARGIN) + MARGIN, panel_height + CAPTION_HEIGHT + MARGIN)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for index, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = MARGIN + index * (panel_width + MARGIN)
        draw.text((left, 5), caption, fill="black", font=font)
        # Box, not bilinear: a thin cable keeps its share of grey instead of vanishing between samples.
        scaled = Image.fromarray(panel).resize((scaled_width, panel_height), Image.Resampling.BOX)
        sheet.paste(scaled, (left, CAPTION_HEIGHT))
    return np.array(sheet)


def stack(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Stack pictures below each other on white, as a contact sheet."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(padded)


def _white(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * 255
