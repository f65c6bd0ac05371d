"""A cache of image embeddings: the last ones in memory, and all of them in a folder if one is given."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from maskrt.runtime.engines.device_tensor import DeviceTensor, Tensor
from maskrt.runtime.errors import InputError
from maskrt.runtime.files import write_files

_KEY = "image_embeddings"
_HEADER_BYTES = 1 << 16  # more than safetensors needs for one tensor


class Embeddings:
    """A cache by image content; an embedding whose file is damaged or does not fit is computed and written again."""

    def __init__(
        self, shape: tuple[int, ...], encoder: str, cache_images: int = 16, cache_dir: Path | str | None = None
    ) -> None:
        """Set up the cache; nothing is read or written yet.

        Args:
            shape: shape of an embedding.
            encoder: the encoder's sha256 and provider, which become part of the files' names.
            cache_images: how many embeddings stay in memory, the last used ones; from 1.
            cache_dir: a folder for files, made when needed; it may be shared, and emptied at any time.

        Raises:
            InputError: cache_images is below 1.
        """
        if cache_images < 1:
            raise InputError(f"cache_images is {cache_images}: the current image needs one, use 1 or more")
        self._shape, self._encoder, self._most = shape, encoder, cache_images
        self._folder = None if cache_dir is None else Path(cache_dir)
        self._recent: OrderedDict[str, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._recent)

    def get(self, rgb: NDArray[np.uint8], compute: Callable[[NDArray[np.uint8]], Tensor]) -> Tensor:
        """Return the embedding of an image: from memory, otherwise from its file, otherwise from `compute`.

        Raises:
            InputError: its file cannot be written.
        """
        key = hashlib.sha256(f"{rgb.shape}".encode() + np.ascontiguousarray(rgb).tobytes()).hexdigest()
        if key not in self._recent:
            self._recent[key] = self._filed(key, rgb, compute)
        self._recent.move_to_end(key)
        while len(self._recent) > self._most:
            self._recent.popitem(last=False)
        return self._recent[key]

    def clear(self) -> None:
        """Drop the embeddings in memory."""
        self._recent.clear()

    def _filed(self, key: str, rgb: NDArray[np.uint8], compute: Callable[[NDArray[np.uint8]], Tensor]) -> Tensor:
        if self._folder is None:
            return compute(rgb)
        file = self._folder / f"{key}-{self._encoder}.safetensors"
        if (found := self._read(file)) is not None:
            return found
        embedding = compute(rgb)
        self._write(file, embedding.numpy() if isinstance(embedding, DeviceTensor) else embedding)
        return embedding

    def _read(self, file: Path) -> Tensor | None:
        """Read an embedding; return None if there is no file or its own checksum fails (safetensors has none)."""
        try:
            if file.stat().st_size > 4 * int(np.prod(self._shape)) + _HEADER_BYTES:
                return None
            with safe_open(file, framework="np") as opened:
                said, value = (opened.metadata() or {}).get("sha256"), np.asarray(opened.get_tensor(_KEY))
        except (OSError, SafetensorError):
            return None
        if (
            value.dtype != np.float32
            or value.shape != self._shape
            or said != hashlib.sha256(value.tobytes()).hexdigest()
        ):
            return None
        return value

    def _write(self, file: Path, embedding: NDArray[np.float32]) -> None:
        value = np.ascontiguousarray(embedding)
        try:
            write_files({file: save({_KEY: value}, {"sha256": hashlib.sha256(value.tobytes()).hexdigest()})})
        except OSError as error:
            raise InputError(
                f"cannot write {file}: {error.strerror or error}: free space or choose another cache_dir"
            ) from error
