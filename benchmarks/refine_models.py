"""The models of the case `refine`: the trained demo refiner, and CRM at its published size with random weights."""

from dataclasses import dataclass
from pathlib import Path

from maskrt.benchmarks.demo import BUNDLE
from maskrt.benchmarks.soss_models import Report
from maskrt.runtime.bundle import MANIFEST, open_bundle
from maskrt.runtime.errors import InputError

RANDOM_SEED = 0
RECIPE = 1  # counts changes to how random models are made
DEMO_CHECKPOINT = Path(__file__).resolve().parents[1] / "export" / "demo" / "weights" / "refiner.safetensors"
SIZES = ("demo", "resnet50")


@dataclass(frozen=True)
class RefineModels:
    """bundle: its folder; crm: KIND:FILE that it was made from; trained: so that its masks mean something."""

    bundle: Path
    crm: str
    trained: bool
    note: str


def refine_models(size: str, work: Path, report: Report) -> dict[str, RefineModels]:
    """The models of a size, or of "all".

    Args:
        work: where random ones are made, and kept.

    Raises:
        InputError: an unknown size.
    """
    if size not in (*SIZES, "all"):
        raise InputError(f"unknown size {size!r} of refine; known: {', '.join(SIZES)}, all")
    chosen = SIZES if size == "all" else (size,)
    return {name: _demo() if name == "demo" else _random(work / "refine-resnet50", report) for name in chosen}


def _demo() -> RefineModels:
    return RefineModels(BUNDLE, f"custom:{DEMO_CHECKPOINT}", True, "demo: the demo refiner, half of ResNet-50's width")


def _random(folder: Path, report: Report) -> RefineModels:
    import torch

    from maskrt.export.crm import CrmConfig, build_crm
    from maskrt.export.refiner import export_refiner

    bundle, crm = folder / "bundle", f"resnet50:{folder / 'crm.pth'}"
    note = f"resnet50: random weights, recipe {RECIPE}, seed {RANDOM_SEED}, at the published size"
    if (bundle / MANIFEST).is_file() and open_bundle(bundle).manifest.note == note:
        return RefineModels(bundle, crm, False, note)
    report("resnet50: making random weights")
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(RANDOM_SEED)
    state = build_crm(CrmConfig()).state_dict()
    for name, value in state.items():  # statistics as after training, or every norm would be the same
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    torch.save({f"module.{name}": value for name, value in state.items()}, folder / "crm.pth")
    export_refiner(crm, bundle, note=note, overwrite=True, report=report)
    return RefineModels(bundle, crm, False, note)
