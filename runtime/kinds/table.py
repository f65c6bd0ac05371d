"""One row for each kind of bundle. A new kind is a row: see docs/extending.md."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from maskrt.kernels.sets import KernelSet
from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.bundle.manifest import MANIFESTS, Manifest
from maskrt.runtime.engines.axes import Inputs
from maskrt.runtime.engines.loading import WrapSession, as_loaded
from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.answers import Answer
from maskrt.runtime.evaluation.scoring import Evaluation
from maskrt.runtime.evaluation.verify import Certify
from maskrt.runtime.evaluation.verify_files import load_models
from maskrt.runtime.pipelines.base import FramePipeline


class OpenPipeline(Protocol):
    """Loads the pipeline of a bundle, whose settings are those it is run with; wrap_session: see Sessions."""

    def __call__(
        self,
        bundle: Bundle,
        provider: str,
        threads: int | None,
        kernels: KernelSet,
        *,
        wrap_session: WrapSession = as_loaded,
    ) -> FramePipeline: ...


@dataclass(frozen=True)
class PipelineKind:
    """Everything that maskrt knows of one kind of bundle.

    manifest: the struct of its bundle.json, whose tag is the kind's name.
    open: makes a pipeline that needs nothing but frames; None where the kind needs more, as rough masks or clicks.
    load: loads every model once, which is what `maskrt verify` does without pictures.
    sizes: role -> the sizes that its graph is run at, for engines and for what `maskrt inspect` counts.
    verify: compares its fast path with its plain one on a picture; None where there is nothing to compare.
    evaluate: what `maskrt eval` scores; None where it scores nothing.
    answers: what `maskrt export precisions` compares with float32; None where it makes no other precision.
    clicks: whether it is opened by open_interactive.
    no_engine: roles that TensorRT never runs, since the graph changes weights and an engine holds its own.
    """

    manifest: type[Manifest]
    open: OpenPipeline | None = None
    load: Callable[[Bundle, str, int | None], None] = load_models
    sizes: Mapping[str, Callable[[Bundle], Inputs]] = field(default_factory=dict)
    verify: Certify | None = None
    evaluate: Evaluation | None = None
    answers: Answer | None = None
    clicks: bool = False
    no_engine: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The kind as bundle.json has it."""
        return str(self.manifest.__struct_config__.tag)


KINDS: dict[str, PipelineKind] = {}


def register_kind(kind: PipelineKind) -> None:
    """Add a kind to the table; bundles of it can then be opened, and every command knows what to do with them.

    Raises:
        InputError: its manifest has no tag to tell its bundles by, or there is a kind of this name already.
    """
    config = kind.manifest.__struct_config__
    if not (isinstance(config.tag, str) and config.tag and config.tag_field == "kind"):
        raise InputError(f'{kind.manifest.__name__} has no tag to tell its bundles by: declare it with tag="your_kind"')
    if kind.name in KINDS:
        raise InputError(f"there is a kind {kind.name} already: choose another tag for {kind.manifest.__name__}")
    KINDS[kind.name] = kind
    MANIFESTS[kind.name] = kind.manifest


def kind_of(bundle: Bundle) -> PipelineKind:
    """Return the row of a bundle."""
    return KINDS[bundle.manifest.kind]
