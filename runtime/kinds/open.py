"""Opens the pipeline of any bundle that needs nothing but frames."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskrt.runtime.bundle.bundle import Bundle, open_bundle
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.cpus import checked_threads
from maskrt.runtime.engines.loading import WrapSession, as_loaded
from maskrt.runtime.errors import BundleError
from maskrt.runtime.kinds.commands import require_command
from maskrt.runtime.kinds.table import kind_of
from maskrt.runtime.pipelines.base import FramePipeline, kernel_set


def open_pipeline(
    bundle: Path | str | Bundle,
    provider: str = "cpu",
    threads: int | None = None,
    kernels: str = "cpu",
    precision: str | None = None,
    settings: Mapping[str, Any] | None = None,
    wrap_session: WrapSession = as_loaded,
) -> FramePipeline:
    """Verify a bundle and load its pipeline for use in a `with` block.

    Args:
        bundle: the bundle's folder, or what open_bundle returned for it.
        provider: "cpu", "cuda", "ort-tensorrt", "openvino", or "openvino-bf16", whose answer differs a little; "cuda:1"
            is the second GPU; "tensorrt" runs the engines of maskrt build. An absent one raises, nothing falls back.
        threads: threads that each network and kernel may use; None leaves the choice to each.
        kernels: "cpu", or "cuda" for an NVIDIA GPU; the answer is the same.
        precision: "fp32", or one that maskrt export precisions put into the bundle. None is the precision that the
            bundle was opened in, "fp32" for a folder.
        settings: values in place of the bundle's, such as {"points_per_side": 20}.
        wrap_session: is given the role and the session of every network, and returns what the pipeline uses instead.

    Raises:
        BundleError: the bundle is not whole, lacks the precision, or needs more than frames; or there is no such
            setting, with all that there are.
        InputError: a setting does not fit the bundle, or threads is no whole number from 1 to 1024.
        ProviderUnavailable: the provider, or a GPU for the kernels, is not on this machine.
    """
    threads = checked_threads(threads)
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    opened = opened if precision is None else opened.at(precision)
    require_command(opened, "run")
    open_kind = kind_of(opened).open
    if open_kind is None:  # require_command has said so
        raise BundleError(f"{opened.path} needs more than frames")
    own_kernels = kernel_set(kernels)
    configured = with_settings(opened, settings or {})
    return open_kind(configured, provider, threads, own_kernels, wrap_session=wrap_session)
