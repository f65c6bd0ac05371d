"""Read the sizes of a custom network from the JSON file beside its checkpoint."""

from pathlib import Path
from typing import TypeVar

import msgspec

from maskrt.runtime.errors import InputError

ConfigT = TypeVar("ConfigT", bound=msgspec.Struct)
MAX_CONFIG_BYTES = 1 << 16


def read_config(path: Path, kind: type[ConfigT]) -> ConfigT:
    """Read a SamConfig, CrmConfig or the like from JSON.

    Raises:
        InputError: the file is missing or too large, is not JSON, or has unknown or wrong fields.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: a custom network needs its sizes beside the checkpoint")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise InputError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes: not a {kind.__name__}")
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        fields = ", ".join(kind.__struct_fields__)
        raise InputError(f"{path} is not a {kind.__name__}: {error}; fields: {fields}") from error
