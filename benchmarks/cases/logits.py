"""Inputs for the cases that measure one part of SOSS: embeddings, prompts and low-res masks of a size's models."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskrt.benchmarks.cases.soss_models import Models
from maskrt.benchmarks.harness.registry import BenchOptions
from maskrt.kernels.low_res import Placement
from maskrt.runtime.bundle.bundle import open_bundle
from maskrt.runtime.bundle.manifest import SossManifest
from maskrt.runtime.bundle.specs import MasksSpec
from maskrt.runtime.cpus import usable_cpus
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.region import fit_size_hw
from maskrt.runtime.sam.mask_decoder import WholeDecoder
from maskrt.runtime.sam.prompts import point_grid


@dataclass(frozen=True)
class Prompts:
    """Every prompt of the grid on one frame, in a file.

    file: .npz with embeddings float32 [1, C, e, e], coords [N, 2, 2] and labels [N, 2]. bundle, sam: the same weights.
    """

    file: Path
    bundle: Path
    sam: str
    placement: Placement
    masks: MasksSpec
    threads: int


def write_prompts(models: Models, options: BenchOptions, folder: Path) -> Prompts:
    """Encode the region of interest and lay the grid of points over it."""
    bundle = open_bundle(models.bundle)
    manifest = bundle.expect(SossManifest)
    side, (_, _, width, height) = manifest.sam.image_size, models.roi
    image = encoder_image(models, side)
    input_hw = image.shape[0], image.shape[1]
    with open_session(bundle.model_path("encoder")) as encoder:
        embeddings = encoder.run({"image": image[None]})["image_embeddings"]
    points = point_grid(options.points_per_side) * np.array(input_hw[::-1])
    coords = np.zeros((len(points), 2, 2), np.float32)
    coords[:, 0] = points
    labels = np.tile(np.array([1, -1], np.float32), (len(points), 1))
    file = folder / "prompts.npz"
    np.savez(file, embeddings=embeddings, coords=coords, labels=labels)
    placement = Placement(side, input_hw, (height, width))
    return Prompts(file, models.bundle, models.sam, placement, manifest.masks, options.threads or usable_cpus())


def encoder_image(models: Models, side: int) -> NDArray[np.uint8]:
    """Return the region of interest as the encoder takes it, uint8 [h, w, 3] with the longest side `side`."""
    x, y, width, height = models.roi
    size_wh = fit_size_hw((height, width), (side, side))[::-1]
    crop = np.ascontiguousarray(models.rgb[y : y + height, x : x + width])
    return np.array(Image.fromarray(crop).resize(size_wh, Image.Resampling.BILINEAR))


def write_low_res(prompts: Prompts, folder: Path, count: int) -> Path:
    """Write low_res float32 [P, 3, l, l] and pred_iou [P, 3] of `count` prompts spread over the grid into an .npz."""
    bundle = open_bundle(prompts.bundle)
    values = np.load(prompts.file)
    chosen = np.linspace(0, len(values["coords"]) - 1, count).round().astype(np.int64)
    with open_session(bundle.model_path("decoder")) as session:
        decoder = WholeDecoder(session, bundle.expect(SossManifest).sam)
        image = decoder.prepare(values["embeddings"])
        found = decoder.prompt(image, values["coords"][chosen], values["labels"][chosen])
    file = folder / "low_res.npz"
    np.savez(file, low_res=found.state["low_res_masks"], pred_iou=found.pred_iou)
    return file
