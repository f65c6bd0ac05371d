"""The file of a long evaluation, from which it can go on after a stop."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from maskrt.runtime.errors import InputError
from maskrt.runtime.files import write_bytes

KEY = "maskrt"  # key of the metadata, whose values are texts
SessionState = Mapping[str, NDArray[Any]]
Failed = Literal["accept", "give-up", "skip"]
ProtocolName = Literal["paper", "wseseg"]


class ObjectRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A finished object: number of clicks, IoU of its mask after them, and seconds that the session took."""

    name: str = msgspec.field(name="source")
    label: int
    clicks: int
    iou: float
    seconds: float


class SequenceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings that decide the figures.

    bundle_sha256: of bundle.json, which holds those of the models; options: settings that replace the bundle's; limit:
    such as 20@85; failed: what the user does with an object that is not good enough after the last click, where "skip"
    learns nothing from it in the end; pictures_sha256: of pictures and truth; protocol: see
    maskrt.runtime.evaluation.clicks.
    """

    bundle_sha256: str
    options: dict[str, Any]
    provider: str
    limit: str
    failed: Failed
    min_area: int
    pictures_sha256: str
    protocol: ProtocolName = "paper"


class ClickSequence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Objects in the order in which they were segmented; steps, skipped_steps: training steps taken and left out."""

    settings: SequenceSettings
    records: tuple[ObjectRecord, ...] = ()
    steps: int = 0
    skipped_steps: int = 0


def read_sequence(path: Path, settings: SequenceSettings) -> tuple[ClickSequence, dict[str, NDArray[Any]]]:
    """Read what an earlier run has done, and the session's state after it; both are empty if there is no file.

    Raises:
        InputError: the file is damaged, or was made with other settings.
    """
    if not path.exists():
        return ClickSequence(settings), {}
    try:
        with safe_open(path, framework="np") as file:
            found = msgspec.json.decode((file.metadata() or {}).get(KEY, ""), type=ClickSequence)
            names = file.keys()
            state = {name: np.asarray(file.get_tensor(name)) for name in names}
    except (SafetensorError, OSError, msgspec.DecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it, or choose another --out") from error
    different = [
        name for name in SequenceSettings.__struct_fields__ if getattr(found.settings, name) != getattr(settings, name)
    ]
    if different:
        raise InputError(f"{path} is from a run with another {', '.join(different)}: choose another --out")
    return found, state


def write_sequence(path: Path, sequence: ClickSequence, state: SessionState) -> None:
    """Write or replace the file, whole or not at all.

    Raises:
        MaskrtError: it cannot be written.
    """
    # Not ascontiguousarray, which would turn a single number into a list.
    tensors = {name: np.asarray(array, order="C") for name, array in state.items()}
    write_bytes(path, save(tensors, {KEY: msgspec.json.encode(sequence).decode()}))
