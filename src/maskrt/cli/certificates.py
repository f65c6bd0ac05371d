"""Runs the certificates of `maskrt verify` and prints them."""

from collections.abc import Iterator
from pathlib import Path

from maskrt.cli.say import say
from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle.bundle import FP32, Bundle
from maskrt.runtime.bundle.manifest import Artifact
from maskrt.runtime.bundle.seal import RESEAL, SEALED
from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.answers import summarized
from maskrt.runtime.evaluation.verify import ImageCertificate, certify_refiner
from maskrt.runtime.io.sources import open_source
from maskrt.runtime.kinds.table import kind_of
from maskrt.runtime.pipelines.refine.pipeline import rough_reader
from maskrt.runtime.types import BadFrame, Roi


def print_bundle(bundle: Bundle, provider: str) -> None:
    """Print what a bundle holds and how far its models were from PyTorch at export; they have been loaded before."""
    models = bundle.manifest.models
    say(f"{bundle.path}: {len(models)} networks, sha256 as listed, all load on {provider}")
    if bundle.manifest.schema < SEALED:
        say(f"  bundle.json has no digest (schema {bundle.manifest.schema}): {RESEAL}")
    for role in models:
        entry = bundle.model(role)
        parity = entry.error if isinstance(entry, Artifact) else entry.parity
        say(f"  {role}: {'as given' if parity is None else f'max relative error {parity.max_rel:.1e} at export'}")
        for finding in () if role in kind_of(bundle).no_engine else models[role].tensorrt:
            say(f"    TensorRT would refuse: {finding}")
    if bundle.precision != FP32:
        lower = bundle.manifest.precisions[bundle.precision]
        say(f"  {bundle.precision} at export: {summarized(lower.agreement)}")


def certify_images(
    bundle: Bundle,
    images: str,
    region: Roi | None,
    masks: Path | None,
    provider: str,
    threads: int | None,
    kernels: KernelSet,
    max_pixels: int,
) -> Iterator[ImageCertificate]:
    """Certify a bundle on every image, or with rough masks its refiner; print a line for each.

    Raises:
        InputError: an image cannot be read; a certificate on the others would not be the one asked for.
    """
    rough_of = None if masks is None else rough_reader(masks, False, max_pixels)
    certify = kind_of(bundle).verify
    with open_source(images, max_pixels) as source:
        for item in source:
            if isinstance(item, BadFrame):
                raise InputError(f"{item.name}: {item.reason}")
            if rough_of is not None:
                rough = rough_of(item.name)
                found: ImageCertificate = certify_refiner(
                    bundle, item.name, item.rgb, rough, provider, threads, kernels
                )
            else:
                assert certify is not None  # require_command has refused other kinds
                found = certify(bundle, item.name, item.rgb, region, provider, threads, kernels)
            say(f"{found.name}: {found.summary}; plain {found.plain_s:.1f} s, fast {found.fast_s:.1f} s")
            yield found
        for note in source.notes:
            say(note, err=True)
