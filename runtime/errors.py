"""The exception tree. Every message is one line and says the fix; a list that helps is in the notes of the error.

MaskrtError                 anything maskrt refuses or fails at; exit code 1
  InputError (ValueError)   bad input or usage; exit code 2
    BundleError             a bundle is missing, altered, or of another schema
    CheckpointError         a checkpoint cannot be loaded into the architecture asked for
  ProviderUnavailable       the execution provider asked for is not on this machine
  NetworkError              a network failed, returned NaN or infinity, or a shape it did not declare
    NotFinite               it returned NaN or infinity
    OutOfMemory             there was not enough memory, of the GPU or of the machine, to load or run it
  ExportError               an exported graph differs from its PyTorch model
  CostUnknown               the cost of a graph depends on values, not on the sizes of its inputs
"""


class MaskrtError(Exception):
    """Base of every error that maskrt raises on purpose."""

    exit_code = 1


class InputError(MaskrtError, ValueError):
    """The caller's input or options cannot be used."""

    exit_code = 2


class BundleError(InputError):
    """The bundle on disk is not one this version can trust and run."""


class CheckpointError(InputError):
    """The checkpoint does not fit the architecture, is damaged, or holds code."""


class ProviderUnavailable(MaskrtError):
    """The requested execution provider does not exist here. maskrt never falls back silently."""


class NetworkError(MaskrtError):
    """A network's output cannot be used."""


class NotFinite(NetworkError):
    """A network returned NaN or infinity, for at least one picture of a batch."""


class OutOfMemory(NetworkError):
    """A network did not fit into memory, not even with a smaller batch where it has one."""


class ExportError(MaskrtError):
    """An exported graph failed its checks; nothing was written."""


class CostUnknown(MaskrtError):
    """The cost of a graph cannot be read from the graph."""
