"""A CRM small enough to be exported in seconds, with random weights whose masks have outlines."""

from pathlib import Path
from typing import Any

import msgspec
from scrambled import scrambled_weights

from maskrt.benchmarks.cases.refine_models import carry_mask

SOURCES = ("tiny_refiner.py", "scrambled.py", "benchmarks/cases/refine_models.py")  # decide the files


def tiny_crm(seed: int = 0, sureness: float | None = None) -> Any:
    """A CrmNet whose probabilities lie on both sides of a half and follow the picture and the mask.

    sureness: as of carry_mask(); without it the network is nowhere sure.
    """
    import torch

    from maskrt.export.architectures.crm import CrmConfig, build_crm

    torch.manual_seed(seed)
    net = scrambled_weights(build_crm(CrmConfig(width=8, blocks=(1, 1, 1, 1))), seed)
    with torch.no_grad():
        net.feats.conv1.weight[:, 3].mul_(2)  # one channel of four, the same over large areas: to be heard
        net.imnet.layers[0].weight[:, : net.config.features].mul_(2)
        norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in norms:  # statistics of a picture with a mask, as after training
            norm.momentum = 1.0
            norm.train()
        coarse = torch.randn(2, 3, 12, 12)
        picture = torch.nn.functional.interpolate(coarse, (128, 128), mode="bicubic")
        mask = torch.full((2, 1, 128, 128), -1.0)
        mask[..., 30:90, 40:100] = 1
        pixels = torch.cat([picture, mask], dim=1)
        net.feats.layer4(net.backbone(pixels)[2])
        net.features(pixels)
        for norm in norms:
            norm.momentum = 0.1
        coords = torch.rand(2, 2000, 2) * 2 - 1
        logits = net.eval()(pixels, coords, torch.full((2, 2000, 2), 2 / 128))
        last = net.imnet.layers[-1]
        gain = 0.6 / logits.std()
        last.weight.mul_(gain)
        last.bias.copy_((last.bias - logits.mean()) * gain)
    if sureness is not None:
        carry_mask(net.state_dict(), sureness)
    return net


def write_tiny_refiner(folder: Path, sureness: float | None = None) -> None:
    """Write the checkpoint, its names as in public ones, with its config beside it, and FOLDER/bundle."""
    import torch

    from maskrt.export.bundles.refiner import export_refiner

    net = tiny_crm(sureness=sureness)
    torch.save({f"module.{name}": value for name, value in net.state_dict().items()}, folder / "crm.pth")
    (folder / "crm.json").write_bytes(msgspec.json.encode(net.config))
    export_refiner(spec_in(folder), folder / "bundle")


def spec_in(folder: Path) -> str:
    """Return the KIND:FILE of the checkpoint in a folder that write_tiny_refiner has filled."""
    return f"custom:{folder / 'crm.pth'}"
