"""Loads every model of a bundle once, which `maskrt verify` does with or without pictures."""

from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.interactive.decoder_files import read_base
from maskrt.runtime.interactive.networks import open_networks
from maskrt.runtime.pipelines.refine.refiner import read_weights


def load_models(bundle: Bundle, provider: str, threads: int | None) -> None:
    """Load every graph on a provider, one after the other, and read a refiner's arrays.

    Raises:
        BundleError: a file is not what its role needs.
        ProviderUnavailable, OutOfMemory: see open_session.
    """
    for role, entry in bundle.manifest.models.items():
        if entry.file.endswith(".onnx"):
            open_session(bundle.model_path(role), provider, threads, entry=bundle.model(role)).close()
        elif entry.file.endswith(".npz"):
            read_weights(bundle, role)


def load_networks(bundle: Bundle, provider: str, threads: int | None) -> None:
    """Load the networks of an interactive bundle as a session does, and give the decoder its weights.

    Raises:
        BundleError: a file is not what its role needs, or the decoder does not take the weights.
        InputError: the provider cannot run a decoder that learns.
        ProviderUnavailable, OutOfMemory: see open_session.
    """
    with open_networks(bundle, provider, threads) as networks:
        networks.require(read_base(bundle.model_path("weights"), bundle.model("weights")))
