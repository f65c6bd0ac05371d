"""`maskrt verify`."""

from pathlib import Path
from typing import Annotated

import typer

from maskrt.cli.shared import BundlePath, Device, MaxMegapixels, Provider, Region, Settings, Threads


def command(
    bundle: BundlePath,
    image: Annotated[
        str | None, typer.Option("--image", metavar="IMAGES", help="Image, folder or 'glob*' to certify on.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", metavar="DIR", help="Rough masks DIR/STEM.png: certify the refiner.")
    ] = None,
    roi: Region = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the certificate as JSON.")] = None,
    provider: Provider = "cpu",
    device: Device = None,
    threads: Threads = None,
    settings: Settings = None,
    max_megapixels: MaxMegapixels = 50,
) -> None:
    """Check a bundle on this machine.

    Without --image: the files against their sha256, and that every network loads. With it: the whole pipeline once
    plain (ONNX Runtime on the CPU in float32, SAM's decoder in one graph, NumPy kernels) and once fast, as maskrt run
    does it on --provider, and how many masks and pixels differ. The plain way takes minutes for a full grid; --set
    points_per_side=10 is a quick check. With --masks too: the refiner, plain without tiles. Exit code 1: something
    differs by more than rounding.

    \b
    Example:
      maskrt verify bundles/ward --image frames/0001.png --set points_per_side=10
    """
    import msgspec

    from maskrt.benchmarks.verify import Certificate, RefinerCertificate, certify, certify_refiner
    from maskrt.cli.options import on_device, parse_roi, parse_settings
    from maskrt.runtime.atomic import write_bytes
    from maskrt.runtime.bundle import open_bundle
    from maskrt.runtime.errors import InputError
    from maskrt.runtime.refine_pipeline import rough_reader
    from maskrt.runtime.refiner import read_weights
    from maskrt.runtime.session import open_session
    from maskrt.runtime.sources import BadFrame, open_source

    provider = on_device(provider, device)
    opened = open_bundle(bundle)
    overrides = parse_settings(settings or [])
    for role, entry in opened.manifest.models.items():
        if entry.file.endswith(".npz"):
            read_weights(opened, role)
        else:
            open_session(opened.model_path(role), provider, threads).close()
    print(f"{bundle}: {len(opened.manifest.models)} networks, sha256 as listed, all load on {provider}")
    for role, entry in opened.manifest.models.items():
        parity = entry.parity
        print(f"  {role}: {'as given' if parity is None else f'max relative error {parity.max_rel:.1e} at export'}")
        for finding in entry.tensorrt:
            print(f"    TensorRT would refuse: {finding}")
    certificates: list[Certificate | RefinerCertificate] = []
    max_pixels = int(max_megapixels * 1e6)
    rough_of = rough_reader(masks, False, max_pixels) if masks is not None else None
    region = parse_roi(roi) if roi is not None else None
    if image is not None:
        with open_source(image, max_pixels) as source:
            for item in source:
                if isinstance(item, BadFrame):
                    raise InputError(f"{item.source}: {item.reason}")
                if rough_of is None:
                    found = certify(opened, item.source, item.rgb, region, overrides, provider, threads)
                else:
                    rough = rough_of(item.source)
                    found = certify_refiner(opened, item.source, item.rgb, rough, overrides, provider, threads)
                certificates.append(found)
                print(f"{found.source}: {found.told}; plain {found.plain_s:.1f} s, fast {found.fast_s:.1f} s")
    if json is not None:
        write_bytes(json, msgspec.json.format(msgspec.json.encode(certificates), indent=2) + b"\n")
    raise typer.Exit(0 if all(found.passed for found in certificates) else 1)
