"""`maskrt verify`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from maskrt.cli.say import say
from maskrt.cli.shared import (
    BundlePath,
    Device,
    Kernels,
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
        str | None, typer.Option("--image", metavar="IMAGES", help="Run the pipeline on this image, folder or 'glob*'.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", metavar="DIR", help="Check the refiner on rough masks DIR/STEM.png.")
    ] = None,
    roi: Region = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the certificates as JSON.")] = None,
    provider: Provider = "cpu",
    device: Device = None,
    kernels: Kernels = "cpu",
    precision: Precision = "fp32",
    threads: Threads = None,
    settings: Settings = None,
    max_megapixels: MaxMegapixels = 50,
) -> None:
    """Check a bundle on this machine.

    Without --image, the files are checked against their sha256, and every network is loaded. With --image, the whole
    pipeline runs once plain and once fast, and the differing masks and pixels are counted. Plain means ONNX Runtime on
    the CPU in float32, SAM's decoder in one graph, two stages patch by patch, and NumPy kernels. Fast is what maskrt
    run does on --provider. The plain way takes minutes for a full grid; --set points_per_side=8 makes a short check.
    With --masks too, the refiner is checked; there, plain also means without tiles.

    With another --precision than fp32, the comparison is with fp32 on the CPU, and the IoU of the final masks decides:
    its mean over the images must reach the tolerance that the bundle was exported with.

    The result is printed; --json writes it too. Exit codes: 0 all is as it should be, 1 something differs by more than
    rounding or another failure, 2 unusable input or options, 130 stopped with Ctrl-C.

    \b
    Example:
      maskrt scenes --seed 900000 --count 2 --size 640x360 --out out/scenes
      maskrt verify export/demo/bundle --image out/scenes/images/scene_900000.png --roi 111,47,383,286 \\
        --set points_per_side=8
    """
    import msgspec

    from maskrt.cli.certificates import certify_images, print_bundle
    from maskrt.cli.options import on_device, parse_roi, parse_settings
    from maskrt.cli.regions import advise_regions
    from maskrt.runtime.bundle.bundle import FP32, open_bundle
    from maskrt.runtime.bundle.settings import with_settings
    from maskrt.runtime.errors import InputError
    from maskrt.runtime.evaluation.answers import Calibration, summarized
    from maskrt.runtime.evaluation.verify import certify_precision
    from maskrt.runtime.files import write_bytes
    from maskrt.runtime.kinds.commands import require_command
    from maskrt.runtime.kinds.table import kind_of
    from maskrt.runtime.pipelines.base import kernel_set

    provider, max_pixels = on_device(provider, device), int(max_megapixels * 1e6)
    opened = with_settings(open_bundle(bundle, precision), parse_settings(settings or []))
    kind = kind_of(opened)
    if masks is not None and image is None:
        raise InputError("--masks holds rough masks of images: name the images with --image")
    if masks is not None and roi is not None and (precision == FP32 or kind.open is None):
        raise InputError("a refiner is checked on whole images: leave --roi or --masks out")
    if masks is not None:
        require_command(opened, "verify --masks")
    elif image is not None and precision == FP32:
        require_command(opened, "verify --image")
    own_kernels = kernel_set(kernels)
    kind.load(opened, provider, threads)
    print_bundle(opened, provider)
    region = parse_roi(roi) if roi is not None else None
    if image is not None and masks is None:
        advise_regions(opened, region)
    certificates: list[Any] = []
    if image is not None and precision != FP32:
        assert kind.answers is not None  # otherwise the bundle has no other precision
        frames = Calibration(image, region, masks, max_pixels)
        lower = certify_precision(opened, kind.answers, frames, provider, threads, own_kernels)
        certificates.append(lower)
        say(f"{precision} on {provider}: {summarized(lower.agreement)}; tolerance {lower.tolerance:g}")
    elif image is not None:
        certificates += certify_images(opened, image, region, masks, provider, threads, own_kernels, max_pixels)
    if json is not None:
        write_bytes(json, msgspec.json.format(msgspec.json.encode(certificates), indent=2) + b"\n")
    raise typer.Exit(0 if all(found.passed for found in certificates) else 1)
