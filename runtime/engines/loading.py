"""The sessions of one pipeline: loaded role by role, wrapped where that is wanted, closed together."""

from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack, contextmanager

from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.closeable import Closeable
from maskrt.runtime.engines.providers import open_session
from maskrt.runtime.engines.session import Session, require_names

# Takes a role and its session, and returns the session that the pipeline uses in its place, a Recorder's for example.
WrapSession = Callable[[str, Session], Session]


def as_loaded(role: str, session: Session) -> Session:
    """Return the session as it is."""
    return session


class Sessions(Closeable):
    """The sessions of a bundle's models, on one provider."""

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "cpu",
        threads: int | None = None,
        wrap_session: WrapSession = as_loaded,
    ) -> None:
        """Load nothing yet.

        Args:
            provider, threads: see open_session; a load can choose others.
            wrap_session: it takes every role and session, and returns what to use.
        """
        self.bundle, self.provider, self.threads = bundle, provider, threads
        self._wrap_session = wrap_session
        self._open = ExitStack()

    def load(
        self,
        role: str,
        *,
        inputs: Set[str] = frozenset(),
        outputs: Set[str] = frozenset(),
        provider: str | None = None,
        threads: int | None = None,
        callers: int = 1,
        repeated: bool = False,
    ) -> Session:
        """Load the model of a role; it is closed with all others.

        Args:
            inputs, outputs: names that the graph must have.
            provider, threads: in place of those of all sessions.
            callers, repeated: see open_session.

        Raises:
            BundleError: the bundle has no such model, it cannot be loaded, or it lacks a name.
            ProviderUnavailable, OutOfMemory: see open_session.
        """
        path = self.bundle.model_path(role)
        entry = self.bundle.model(role)
        opened = open_session(path, provider or self.provider, threads or self.threads, callers, repeated, entry)
        session = self._open.enter_context(self._wrap_session(role, opened))
        require_names(session, role, inputs, outputs)
        return session

    @contextmanager
    def loading(self) -> Iterator["Sessions"]:
        """Close what was loaded if the block fails; else it stays open until close()."""
        try:
            yield self
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free all models, the last one first."""
        self._open.close()
