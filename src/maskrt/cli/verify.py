"""`maskrt verify`."""

from pathlib import Path
from typing import Annotated

import typer

from maskrt.cli.shared import (
    BundlePath,
    Device,
    MaxMegapixels,
    Precision,
    Provider,
    Region,
    Settings,
    Threads,
)


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
    precision: Precision = "fp32",
    threads: Threads = None,
    settings: Settings = None,
    max_megapixels: MaxMegapixels = 50,
) -> None:
    """Check a bundle on this machine.

    Without --image: the files against their sha256, and that every network loads. With it: the whole pipeline once
    plain (ONNX Runtime on the CPU in float32, SAM's decoder in one graph, NumPy kernels) and once fast, as maskrt run
    does it on --provider, and how many masks and pixels differ. The plain way takes minutes for a full grid; --set
    points_per_side=10 is a quick check. A two-stage bundle is run patch by patch for the plain way. With --masks too:
    the refiner, plain without tiles. Exit code 1: something differs by more than rounding.

    With another --precision than fp32, the comparison is with fp32 on the CPU, and the IoU of the final masks decides:
    its mean over the images must reach the tolerance that the bundle was exported with.

    \b
    Example:
      maskrt verify bundles/ward --image frames/0001.png --set points_per_side=10
    """
    import msgspec

    from maskrt.cli.options import on_device, parse_roi, parse_settings
    from maskrt.runtime.bundle.bundle import FP32, Artifact, TwoStageManifest, open_bundle
    from maskrt.runtime.engines.providers import open_session
    from maskrt.runtime.errors import InputError
    from maskrt.runtime.evaluation.answers import Calibration, told
    from maskrt.runtime.evaluation.verify import (
        Compared,
        PrecisionCertificate,
        certify,
        certify_precision,
        certify_refiner,
    )
    from maskrt.runtime.evaluation.verify_stages import certify_stages
    from maskrt.runtime.files import write_bytes
    from maskrt.runtime.io.sources import open_source
    from maskrt.runtime.pipelines.refine.pipeline import rough_reader
    from maskrt.runtime.pipelines.refine.refiner import read_weights
    from maskrt.runtime.types import BadFrame

    provider = on_device(provider, device)
    opened = open_bundle(bundle, precision)
    overrides = parse_settings(settings or [])
    for role, entry in opened.manifest.models.items():
        if entry.file.endswith(".npz"):
            read_weights(opened, role)
        else:
            open_session(opened.model_path(role), provider, threads).close()
    print(f"{bundle}: {len(opened.manifest.models)} networks, sha256 as listed, all load on {provider}")
    for role in opened.manifest.models:
        entry = opened.model(role)
        parity = entry.error if isinstance(entry, Artifact) else entry.parity
        print(f"  {role}: {'as given' if parity is None else f'max relative error {parity.max_rel:.1e} at export'}")
        for finding in opened.manifest.models[role].tensorrt:
            print(f"    TensorRT would refuse: {finding}")
    if precision != FP32:
        print(f"  {precision} at export: {told(opened.manifest.precisions[precision].agreement)}")
    certificates: list[Compared | PrecisionCertificate] = []
    certify_image = certify_stages if isinstance(opened.manifest, TwoStageManifest) else certify
    max_pixels = int(max_megapixels * 1e6)
    rough_of = rough_reader(masks, False, max_pixels) if masks is not None else None
    region = parse_roi(roi) if roi is not None else None
    if image is not None and precision != FP32:
        frames = Calibration(image, region, masks, max_pixels)
        lower = certify_precision(opened, frames, overrides, provider, threads)
        certificates.append(lower)
        print(f"{precision} on {provider}: {told(lower.agreement)}; tolerance {lower.tolerance:g}")
    elif image is not None:
        with open_source(image, max_pixels) as source:
            for item in source:
                if isinstance(item, BadFrame):
                    raise InputError(f"{item.source}: {item.reason}")
                if rough_of is None:
                    found: Compared = certify_image(opened, item.source, item.rgb, region, overrides, provider, threads)
                else:
                    rough = rough_of(item.source)
                    found = certify_refiner(opened, item.source, item.rgb, rough, overrides, provider, threads)
                certificates.append(found)
                print(f"{found.source}: {found.told}; plain {found.plain_s:.1f} s, fast {found.fast_s:.1f} s")
    if json is not None:
        write_bytes(json, msgspec.json.format(msgspec.json.encode(certificates), indent=2) + b"\n")
    raise typer.Exit(0 if all(found.passed for found in certificates) else 1)
