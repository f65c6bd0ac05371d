"""The kernels a pipeline runs on, chosen as a whole: the fast ones, or the plain ones that define the answer."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from maskrt.kernels.low_res import cpu as low_res_cpu
from maskrt.kernels.low_res import reference as low_res_reference
from maskrt.kernels.mask_stats import cpu as mask_stats_cpu
from maskrt.kernels.mask_stats import reference as mask_stats_reference
from maskrt.kernels.regions import cpu as regions_cpu
from maskrt.kernels.regions import reference as regions_reference
from maskrt.kernels.resample import cpu as resample_cpu
from maskrt.kernels.resample import reference as resample_reference
from maskrt.kernels.voting import cpu as voting_cpu
from maskrt.kernels.voting import reference as voting_reference

Kernel = Callable[..., Any]


@dataclass(frozen=True)
class KernelSet:
    """One implementation of every kernel; the signatures are those of the families' `reference.py`."""

    resize_bilinear: Kernel
    measure_masks: Kernel
    mask_counts: Kernel
    box_and_counts: Kernel
    remove_small_regions: Kernel
    count_votes: Kernel
    paint: Kernel


def _gather(
    resample: ModuleType, low_res: ModuleType, mask_stats: ModuleType, regions: ModuleType, voting: ModuleType
) -> KernelSet:
    return KernelSet(
        resize_bilinear=resample.resize_bilinear,
        measure_masks=low_res.measure_masks,
        mask_counts=low_res.mask_counts,
        box_and_counts=mask_stats.box_and_counts,
        remove_small_regions=regions.remove_small_regions,
        count_votes=voting.count_votes,
        paint=voting.paint,
    )


CPU = _gather(resample_cpu, low_res_cpu, mask_stats_cpu, regions_cpu, voting_cpu)
REFERENCE = _gather(resample_reference, low_res_reference, mask_stats_reference, regions_reference, voting_reference)
