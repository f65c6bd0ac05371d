"""Which commands take which kind of bundle, and what to say where one does not."""

from collections.abc import Callable
from dataclasses import dataclass

from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.errors import BundleError
from maskrt.runtime.kinds.table import PipelineKind, kind_of


@dataclass(frozen=True)
class Requirement:
    """A demand of a command on a bundle, as a test and in words."""

    fits: Callable[[PipelineKind, Bundle], bool]
    words: str


_ALWAYS = Requirement(lambda kind, bundle: True, "any bundle")
_FRAMES = Requirement(lambda kind, bundle: kind.open is not None, "a bundle that segments frames by itself")
_CLICKS = Requirement(lambda kind, bundle: kind.clicks, "a bundle of maskrt export interactive")
_REFINER = Requirement(
    lambda kind, bundle: bundle.manifest.refiner_specs is not None,
    "a bundle with a refiner, which maskrt export refiner makes",
)

COMMANDS: dict[str, Requirement] = {
    "run": _FRAMES,
    "eval": Requirement(lambda kind, bundle: kind.evaluate is not None, "a bundle that segments frames by itself"),
    "eval --masks": _REFINER,
    "verify": _ALWAYS,
    "verify --image": Requirement(
        lambda kind, bundle: kind.verify is not None, "a bundle whose fast path has a plain one to compare with"
    ),
    "verify --masks": _REFINER,
    "inspect": _ALWAYS,
    "build": _ALWAYS,
    "export precisions": Requirement(
        lambda kind, bundle: kind.answers is not None, "a bundle whose networks stay as they are"
    ),
    "refine": _REFINER,
    "annotate": _CLICKS,
    "serve": _CLICKS,
    "eval-interactive": _CLICKS,
    "doctor": _ALWAYS,
}


# Commands that take a refiner too, where they are given rough masks.
WITH_MASKS = {"eval": "eval --masks", "verify --image": "verify --masks"}


def refusal(bundle: Bundle, command: str) -> str:
    """Return why a command does not take a bundle, and what does, in one line; empty where it takes it."""
    requirement = COMMANDS[command]
    if requirement.fits(kind_of(bundle), bundle):
        return ""
    manifest = bundle.manifest
    instead = f"use it with {manifest.used_with}"
    if (with_masks := WITH_MASKS.get(command)) and COMMANDS[with_masks].fits(kind_of(bundle), bundle):
        instead += ", or add --masks DIR with rough masks"
    return (
        f"{bundle.path} is of kind {manifest.kind} and holds {manifest.holds}: {instead}; "
        f"maskrt {command} takes {requirement.words}"
    )


def require_command(bundle: Bundle, command: str) -> None:
    """Make sure that a command takes a bundle.

    Raises:
        BundleError: it does not; with what to use instead.
    """
    if reason := refusal(bundle, command):
        raise BundleError(reason)
