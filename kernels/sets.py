"""Sets of kernels that a pipeline runs on: the CPU's, a GPU's, or the plain ones that define the answer."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from types import ModuleType
from typing import Any

from maskrt.kernels.distance import cpu as distance_cpu
from maskrt.kernels.distance import reference as distance_reference
from maskrt.kernels.low_res import cpu as low_res_cpu
from maskrt.kernels.low_res import reference as low_res_reference
from maskrt.kernels.mask_stats import cpu as mask_stats_cpu
from maskrt.kernels.mask_stats import reference as mask_stats_reference
from maskrt.kernels.morphology import cpu as morphology_cpu
from maskrt.kernels.morphology import reference as morphology_reference
from maskrt.kernels.nms import reference as nms_reference
from maskrt.kernels.patches import cpu as patches_cpu
from maskrt.kernels.patches import reference as patches_reference
from maskrt.kernels.pixel_decoder import cpu as pixel_decoder_cpu
from maskrt.kernels.pixel_decoder import reference as pixel_decoder_reference
from maskrt.kernels.regions import cpu as regions_cpu
from maskrt.kernels.regions import reference as regions_reference
from maskrt.kernels.resample import cpu as resample_cpu
from maskrt.kernels.resample import reference as resample_reference
from maskrt.kernels.sampling import cpu as sampling_cpu
from maskrt.kernels.sampling import reference as sampling_reference
from maskrt.kernels.selections import cpu as selections_cpu
from maskrt.kernels.selections import reference as selections_reference
from maskrt.kernels.voting import cpu as voting_cpu
from maskrt.kernels.voting import reference as voting_reference

Kernel = Callable[..., Any]


@dataclass(frozen=True)
class KernelSet:
    """One implementation of every kernel; the signatures are those of the families' `reference.py`."""

    resize_bilinear: Kernel
    measure_masks: Kernel
    mask_counts: Kernel
    box_nms: Kernel
    box_and_counts: Kernel
    remove_small_regions: Kernel
    count_votes: Kernel
    paint: Kernel
    region_boxes: Kernel
    sample_bilinear: Kernel
    add_shifted: Kernel
    decode_pixels: Kernel
    dilate: Kernel
    erode_cross: Kernel
    squared_distance: Kernel
    settle_squares: Kernel
    patch_means: Kernel
    gather_patches: Kernel
    blend_patches: Kernel
    choose_windows: Kernel


def _gather(*families: ModuleType) -> KernelSet:
    """Take each kernel from the first family that has it."""
    return KernelSet(
        **{
            field.name: next(getattr(family, field.name) for family in families if hasattr(family, field.name))
            for field in fields(KernelSet)
        }
    )


CPU = _gather(
    resample_cpu,
    low_res_cpu,
    mask_stats_cpu,
    nms_reference,  # its steps are whole rows of NumPy: a frame's boxes need no other loop
    regions_cpu,
    voting_cpu,
    sampling_cpu,
    pixel_decoder_cpu,
    selections_cpu,
    morphology_cpu,
    distance_cpu,
    patches_cpu,
)
REFERENCE = _gather(
    resample_reference,
    low_res_reference,
    mask_stats_reference,
    nms_reference,
    regions_reference,
    voting_reference,
    sampling_reference,
    pixel_decoder_reference,
    selections_reference,
    morphology_reference,
    distance_reference,
    patches_reference,
)


@cache
def cuda() -> KernelSet:
    """Return the kernels for an NVIDIA GPU; like the CPU's, their answers are those of REFERENCE.

    Some kernels stay on the CPU, since each of their steps needs the result of the one before: connected regions
    (`remove_small_regions`, `region_boxes`), choosing windows (`choose_windows`), `erode_cross` and `squared_distance`.

    The first call imports Numba's CUDA target.

    Raises:
        ModuleNotFoundError: numba-cuda is not installed.
        RuntimeError: there is no NVIDIA GPU, its driver cannot be used, or the compiler is missing.
    """
    from maskrt.kernels.device import require_device

    require_device()
    from maskrt.kernels.low_res import cuda as low_res_cuda
    from maskrt.kernels.mask_stats import cuda as mask_stats_cuda
    from maskrt.kernels.morphology import cuda as morphology_cuda
    from maskrt.kernels.nms import cuda as nms_cuda
    from maskrt.kernels.patches import cuda as patches_cuda
    from maskrt.kernels.pixel_decoder import cuda as pixel_decoder_cuda
    from maskrt.kernels.resample import cuda as resample_cuda
    from maskrt.kernels.sampling import cuda as sampling_cuda
    from maskrt.kernels.selections import cuda as selections_cuda
    from maskrt.kernels.voting import cuda as voting_cuda

    return _gather(
        low_res_cuda,
        mask_stats_cuda,
        morphology_cuda,
        nms_cuda,
        patches_cuda,
        pixel_decoder_cuda,
        resample_cuda,
        sampling_cuda,
        selections_cuda,
        voting_cuda,
        regions_cpu,
        distance_cpu,
        # Their CUDA twins come first, so only what those lack is taken from here.
        morphology_cpu,
        patches_cpu,
    )
