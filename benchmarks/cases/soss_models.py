"""Models and frames for the case `soss`: the trained demo, and ViT-B's architecture with random weights."""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrt.benchmarks.harness.registry import BenchOptions
from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
from maskrt.runtime.bundle.specs import MasksSpec
from maskrt.runtime.errors import InputError
from maskrt.runtime.files import sha256_of
from maskrt.runtime.region import checked_roi
from maskrt.runtime.types import Report, Roi

DEMO = Path(__file__).resolve().parents[2] / "export" / "demo"
SCENE_SEED = 1_000_003  # far from every seed that training or evaluation draws
RANDOM_SEED, RECIPE = 0, 6  # a bundle of an older recipe is made again
ALL = "all"
INPUT_HW, ENCODER = (512, 512), "resnet50"


@dataclass(frozen=True)
class Models:
    """A bundle, and as KIND:FILE the checkpoints that it was made from; rgb is uint8 [H, W, 3].

    trained: the segmenter is trained, so that prompts guided by it mean something.
    """

    bundle: Path
    segmenter: str
    sam: str
    rgb: NDArray[np.uint8]
    roi: Roi
    note: str
    trained: bool = False


def demo_models(options: BenchOptions, report: Report, folder: Path = DEMO) -> Models:
    """Return the demo's trained models, with the region of interest of a 1080p scene.

    Raises:
        InputError: the bundle or the weights are missing, or do not belong together.
    """
    from maskrt.benchmarks.scenes.bedside import draw_scene

    bundle, weights = folder / "bundle", folder / "weights"
    if not (bundle / MANIFEST).is_file():
        raise InputError(f"the demo's bundle is missing at {bundle}: make demo-models trains it, or use --size vit_b")
    segmenter = f"deeplabv3plus_resnet50:{weights / 'segmenter.safetensors'}"
    sam = f"custom:{weights / 'sam.safetensors'}"
    check_same_weights(bundle, segmenter, sam)
    scene = draw_scene(SCENE_SEED)
    height, width = scene.rgb.shape[:2]
    note = (
        f"demo: trained demo models, scene {SCENE_SEED} at {width}x{height}, "
        f"ROI {scene.roi_xywh[2]}x{scene.roi_xywh[3]}, {options.points_per_side}x{options.points_per_side} points"
    )
    return Models(bundle, segmenter, sam, scene.rgb, scene.roi_xywh, note, trained=True)


def vit_b_models(options: BenchOptions, report: Report) -> Models:
    """Make ViT-B with seeded random weights once, keep it in options.work, and return it with a whole 1080p scene."""
    from maskrt.benchmarks.scenes.bedside import draw_scene

    rgb = draw_scene(SCENE_SEED).rgb
    folder = options.work / f"vit_b-{options.points_per_side}"
    made = random_models("vit_b", folder, rgb, options.points_per_side, report)
    size = f"{rgb.shape[1]}x{rgb.shape[0]}"
    note = (
        f"vit_b: SAM ViT-B and DeepLabV3+ {ENCODER} with random weights (seed {RANDOM_SEED}), whole {size} frame, "
        f"{options.points_per_side}x{options.points_per_side} points. The IoU head is shifted so that about a third of "
        "the masks pass the gate. These masks say nothing about quality: this size measures time and equality only"
    )
    return Models(*made, rgb, checked_roi(rgb, None), note)


MODELS: dict[str, Callable[[BenchOptions, Report], Models]] = {"demo": demo_models, "vit_b": vit_b_models}


def chosen_models(options: BenchOptions, report: Report, needs: tuple[str, ...]) -> dict[str, Models]:
    """Return the models of the requested sizes, from small to large. All are made before the first is measured.

    Raises:
        ModuleNotFoundError: one of the modules that the case needs is missing.
        InputError: the size is unknown, or its models are missing.
    """
    require(needs)
    if options.size not in (*MODELS, ALL):
        raise InputError(f"unknown size {options.size!r}; known: {', '.join((*MODELS, ALL))}")
    sizes = tuple(MODELS) if options.size == ALL else (options.size,)
    return {size: MODELS[size](options, report) for size in sizes}


def random_models(
    kind: str,
    folder: Path,
    rgb: NDArray[np.uint8],
    points_per_side: int,
    report: Report,
    encoder: str = ENCODER,
    input_hw: tuple[int, int] = INPUT_HW,
) -> tuple[Path, str, str]:
    """Make checkpoints with random weights, and their bundle. They are made again when the bundle has another recipe.

    Args:
        kind: a SAM kind; for "custom", folder/sam.json holds the sizes.
        folder: holds checkpoints and bundle.
        rgb: uint8 [H, W, 3], the picture on which the heads are calibrated.
        encoder, input_hw: of the DeepLabV3+.

    Returns:
        The bundle, the segmenter and the SAM as KIND:FILE.
    """
    import torch

    from maskrt.benchmarks.cases.random_sam import random_sam
    from maskrt.export.architectures.configs import read_config
    from maskrt.export.architectures.sam import SAM_CONFIGS, SamConfig
    from maskrt.export.bundles.soss import export_soss

    bundle, masks = folder / "bundle", MasksSpec(points_per_side=points_per_side)
    segmenter = f"deeplabv3plus_{encoder}:{folder / 'segmenter.pth'}"
    sam = f"{kind}:{folder / 'sam.pth'}"
    frame = hashlib.sha256(rgb.tobytes()).hexdigest()[:12]
    note = f"random weights, recipe {RECIPE}, seed {RANDOM_SEED}, {kind}, {points_per_side} points, frame {frame}"
    if (bundle / MANIFEST).is_file() and open_bundle(bundle).manifest.note == note:
        check_same_weights(bundle, segmenter, sam)
        return bundle, segmenter, sam
    folder.mkdir(parents=True, exist_ok=True)
    report(f"{folder.name}: making random weights")
    config = SAM_CONFIGS[kind] if kind in SAM_CONFIGS else read_config(folder / "sam.json", SamConfig)
    torch.save(random_sam(config, RANDOM_SEED, rgb, masks).state_dict(), folder / "sam.pth")
    torch.save(_random_segmenter(rgb, encoder, input_hw), folder / "segmenter.pth")
    export_soss(segmenter, sam, bundle, input_hw=input_hw, masks=masks, note=note, overwrite=True, report=report)
    return bundle, segmenter, sam


def check_same_weights(bundle: Path, segmenter: str, sam: str) -> None:
    """Make sure that both sides run the same weights.

    Raises:
        InputError: a checkpoint is missing or is not the one that the bundle was made from.
    """
    models = open_bundle(bundle).manifest.models
    for role, spec in (("segmenter", segmenter), ("encoder", sam), ("decoder", sam)):
        file = Path(spec.partition(":")[2])
        if not file.is_file():
            raise InputError(f"{file} is missing: PyTorch needs the checkpoint that {bundle} was made from")
        if sha256_of(file) != models[role].checkpoint_sha256:
            raise InputError(f"{bundle}: its {role} was not made from {file}: export the bundle again")


def require(modules: tuple[str, ...]) -> None:
    """Fail where an optional module is missing, before anything is measured.

    Raises:
        ModuleNotFoundError: the first missing one; the command line turns it into the extra to install.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:  # found, not run: segment_anything's __init__ needs torchvision
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def _random_segmenter(rgb: NDArray[np.uint8], encoder: str, input_hw: tuple[int, int]) -> dict[str, object]:
    """Return a state dict whose two classes both win somewhere on the picture, so that voting has a choice."""
    import torch
    from PIL import Image

    from maskrt.export.architectures.deeplab import build_deeplabv3plus
    from maskrt.export.bundles.soss_segmenter import IMAGENET_MEAN, IMAGENET_STD

    torch.manual_seed(RANDOM_SEED)
    model = build_deeplabv3plus(encoder, 2).eval()
    small = np.asarray(Image.fromarray(rgb).resize(input_hw[::-1]), np.float32) / 255
    normalised = (small - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
    head: Any = model.segmentation_head[0]
    with torch.no_grad():
        logits = model(torch.from_numpy(np.ascontiguousarray(normalised.transpose(2, 0, 1)))[None])[0]
        margin = logits[1] - logits[0]
        gain = 2 / margin.std()
        head.weight.mul_(gain)
        head.bias.mul_(gain)
        head.bias[1] -= margin.median() * gain
    return dict(model.state_dict())
