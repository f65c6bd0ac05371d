"""The way to open a pipeline that needs nothing but frames."""

from pathlib import Path
from typing import Any

from maskrt.runtime.bundle.bundle import FP32, SossManifest, TwoStageManifest, open_bundle, segmenting_manifest
from maskrt.runtime.pipelines.soss.pipeline import SossPipeline
from maskrt.runtime.pipelines.two_stage.pipeline import TwoStagePipeline

# Kind of bundle -> its pipeline.
PIPELINES: dict[type, type[SossPipeline] | type[TwoStagePipeline]] = {
    SossManifest: SossPipeline,
    TwoStageManifest: TwoStagePipeline,
}


def open_pipeline(
    bundle: Path | str, provider: str = "cpu", threads: int | None = None, precision: str = FP32, **options: Any
) -> SossPipeline | TwoStagePipeline:
    """Verify a bundle and load it for use in a `with` block.

    Args:
        bundle: the bundle's folder.
        provider: "cpu", "cuda", "ort-tensorrt", "openvino", or "openvino-bf16", whose answer differs a little; "cuda:1"
            is the second GPU; "tensorrt" runs the engines of maskrt build. An absent one raises, nothing falls back.
        threads: of a network or a kernel while it runs; None leaves the choice to each.
        precision: "fp32", or one that maskrt export precisions put into the bundle.
        options: override fields of the bundle's settings, as `points_per_side=20` or `patches=4`.

    Raises:
        BundleError: the bundle is not whole, lacks the precision, or holds a refiner alone, or an option is unknown.
        ProviderUnavailable: the provider is not on this machine.
    """
    opened = open_bundle(bundle, precision)
    return PIPELINES[type(segmenting_manifest(opened))](opened, provider, threads, options)
