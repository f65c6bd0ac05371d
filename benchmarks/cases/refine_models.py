"""The models of the case `refine`: the trained demo refiner, and CRM at its published size with random weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrt.benchmarks.reports.demo import BUNDLE
from maskrt.runtime.bundle.bundle import MANIFEST, open_bundle
from maskrt.runtime.errors import InputError
from maskrt.runtime.types import Report

RANDOM_SEED = 0
RECIPE = 2  # counts changes to how random models are made
SURENESS = 8  # distance from 0 of the random refiner's logits inside and outside of a mask
DEMO_CHECKPOINT = Path(__file__).resolve().parents[2] / "export" / "demo" / "weights" / "refiner.safetensors"
SIZES = ("demo", "resnet50")


@dataclass(frozen=True)
class RefineModels:
    """One size's models. bundle: folder; crm: KIND:FILE that it was made from; trained: its masks mean something."""

    bundle: Path
    crm: str
    trained: bool
    note: str


def refine_models(size: str, work: Path, report: Report) -> dict[str, RefineModels]:
    """Return the models of a size, or of "all".

    Args:
        work: folder in which random models are made and kept.

    Raises:
        InputError: the size is unknown.
    """
    if size not in (*SIZES, "all"):
        raise InputError(f"unknown size {size!r} of refine; known: {', '.join(SIZES)}, all")
    chosen = SIZES if size == "all" else (size,)
    return {name: _demo() if name == "demo" else _random(work / "refine-resnet50", report) for name in chosen}


def _demo() -> RefineModels:
    return RefineModels(BUNDLE, f"custom:{DEMO_CHECKPOINT}", True, "demo: the demo refiner, half of ResNet-50's width")


def _random(folder: Path, report: Report) -> RefineModels:
    import torch

    from maskrt.export.architectures.crm import CrmConfig, build_crm
    from maskrt.export.bundles.refiner import export_refiner

    bundle, crm = folder / "bundle", f"resnet50:{folder / 'crm.pth'}"
    note = f"resnet50: random weights that carry the mask, recipe {RECIPE}, seed {RANDOM_SEED}, at the published size"
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
    carry_mask(state, SURENESS)
    torch.save({f"module.{name}": value for name, value in state.items()}, folder / "crm.pth")
    export_refiner(crm, bundle, note=note, overwrite=True, report=report)
    return RefineModels(bundle, crm, False, note)


def carry_mask(state: dict[str, Any], sureness: float) -> None:
    """Let a random refiner find the mask that it is given again, by carrying it through one channel of every layer.

    Random weights are nowhere sure, so selections would decode nearly all pixels. A trained refiner is unsure near
    contours. The work of every layer stays the same, and the other channels add random numbers to the logits.

    Args:
        state: of a CrmNet, changed in place.
    """

    def norm(name: str, bias: float = 0.0) -> None:
        for part, value in (("weight", 1.0), ("bias", bias), ("running_mean", 0.0), ("running_var", 1.0)):
            state[f"{name}.{part}"][0] = value

    def only(name: str, at: tuple[int, ...], value: float = 1.0) -> None:
        state[name][0] = 0
        state[name][(0, *at)] = value

    only("feats.conv1.weight", (3, 3, 3))  # the mask, -1 to 1, at the middle of the kernel
    norm("feats.bn1", 1.0)  # 0 to 2
    only("aspp_.aspp1_128.atrous_conv.weight", (0, 0, 0))
    norm("aspp_.aspp1_128.bn")
    norm("aspp_.bn1_128")
    only("aspp_.last_conv.0.weight", (0, 1, 1))
    norm("aspp_.last_conv.1")
    *hidden, last = sorted({int(name.split(".")[2]) for name in state if name.startswith("imnet.layers.")})
    for layer in hidden:
        only(f"imnet.layers.{layer}.weight", (0,))
        state[f"imnet.layers.{layer}.bias"][0] = 0
    state[f"imnet.layers.{last}.weight"][0, 0] = sureness
    state[f"imnet.layers.{last}.bias"][0] -= sureness
