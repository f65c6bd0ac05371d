"""Interactive segmentation: a person clicks, the mask decoder learns from it, and each class has its own decoder."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maskrt.kernels.arrays import Floats, Mask
from maskrt.runtime.bundle.bundle import Bundle, open_bundle
from maskrt.runtime.bundle.manifest import InteractiveManifest
from maskrt.runtime.bundle.settings import with_settings
from maskrt.runtime.closeable import Closeable
from maskrt.runtime.cpus import checked_threads
from maskrt.runtime.engines.device_tensor import Tensor
from maskrt.runtime.errors import InputError
from maskrt.runtime.interactive.clicks import Click
from maskrt.runtime.interactive.decoder_files import read_base, read_decoder, write_decoder
from maskrt.runtime.interactive.embeddings import Embeddings
from maskrt.runtime.interactive.examples import Answer, SessionImage, input_size, session_image
from maskrt.runtime.interactive.learning import AdamState, AdamStep, TrainingExample
from maskrt.runtime.interactive.networks import ClickNetworks, open_networks
from maskrt.runtime.interactive.prompts import (
    Box,
    checked_box,
    checked_click,
    prompt_feeds,
    split_prompts,
)
from maskrt.runtime.interactive.state import from_arrays, on_host, to_arrays
from maskrt.runtime.region import checked_roi

BASE = "base"
SINGLE, AMBIGUOUS = 0, slice(1, 4)  # places of the masks among the decoder's four


class InteractiveSession(Closeable):
    """A session of one person with one bundle; two threads may not use it at once.

    A prompt's answer starts from the answer before it. The first click of an object takes the mask that SAM rates best
    of three; a box and every later prompt take its single mask.
    """

    def __init__(
        self,
        bundle: Bundle,
        provider: str = "cpu",
        threads: int | None = None,
        cache_images: int = 16,
        cache_dir: Path | str | None = None,
    ) -> None:
        """Load the networks; see open_interactive for arguments and errors."""
        manifest = bundle.expect(InteractiveManifest)
        self.settings = manifest.adaptation
        self._sam, self._base_sha256 = manifest.sam, manifest.models["weights"].sha256
        base = read_base(bundle.model_path("weights"), bundle.model("weights"))
        self._base = base
        self._networks: ClickNetworks = open_networks(bundle, provider, threads)
        encoder = f"{manifest.models['encoder'].sha256[:16]}-{provider.replace(':', '_')}"
        try:
            self._networks.require(base)
            self._embeddings = Embeddings(self._networks.embedding_shape, encoder, cache_images, cache_dir)
        except BaseException:
            self._networks.close()
            raise
        self._step = AdamStep(self._networks.step)
        self._decoders = {BASE: AdamState.fresh(base)}
        self.decoder = BASE
        self._start = self._decoders[BASE]  # the state before this object
        self.image: SessionImage | None = None  # may be set back to an earlier one between objects
        self._prompts: list[Click | Box] = []
        self._answers: list[Answer] = []

    @property
    def _state(self) -> AdamState:
        return self._decoders[self.decoder]

    @_state.setter
    def _state(self, state: AdamState) -> None:
        self._decoders[self.decoder] = state

    @property
    def decoders(self) -> tuple[str, ...]:
        """Names of the decoders; `decoder` is the name of the selected one."""
        return tuple(self._decoders)

    @property
    def steps(self) -> int:
        """Steps that the selected decoder has taken, with those that were undone."""
        return self._state.steps

    @property
    def skipped_steps(self) -> int:
        """Steps left out because the loss or a gradient was not finite; they have changed nothing."""
        return self._state.skipped

    @property
    def size_hw(self) -> tuple[int, int] | None:
        """Height and width of the image; None before the first."""
        return None if self.image is None else self.image.size_hw

    @property
    def clicks(self) -> tuple[Click, ...]:
        """Clicks on the current object so far."""
        return tuple(prompt for prompt in self._prompts if isinstance(prompt, Click))

    @property
    def mask(self) -> Mask | None:
        """Mask of the current object, bool [H, W]; None without a prompt."""
        return self._set().drawn(self._answers[-1].low_res) if self._answers else None

    def set_image(self, rgb: NDArray[np.uint8]) -> None:
        """Go on with another image; an object that was not accepted is dropped, with what was learnt from it.

        Args:
            rgb: uint8 [H, W, 3].

        Raises:
            InputError: rgb is something else.
            NetworkError: the encoder failed; the former image stays.
        """
        _, _, width, height = checked_roi(rgb, None)
        input_hw = input_size(self._sam, (height, width))
        embedding = self._embeddings.get(rgb, lambda image: self._networks.embed(image, input_hw))
        self.reset()
        self.image = session_image(self._sam, (height, width), embedding)

    def click(self, x: int, y: int, positive: bool = True) -> Mask:
        """Add a click and return the object's mask, bool [H, W]; the decoder then learns as the settings say.

        Args:
            x, y: column and row of a pixel of the image.
            positive: whether it belongs to the object.

        Raises:
            InputError: the pixel lies outside the image, or there is no image.
            NetworkError: a network failed; the click is not taken.
        """
        return self._prompt(checked_click(Click(x, y, positive), self._set().size_hw))

    def box(self, x0: int, y0: int, x1: int, y1: int) -> Mask:
        """Set the box, whose corners belong to it, and return the object's mask, bool [H, W]; replaces an earlier box.

        Raises:
            InputError: the box is empty or leaves the image, or there is no image.
            NetworkError: a network failed; the box is not taken.
        """
        return self._prompt(checked_box((x0, y0, x1, y1), self._set().size_hw))

    def predict(self, clicks: Sequence[Click], box: Box | None = None) -> Mask:
        """Return the mask for clicks and a box at once, bool [H, W]; nothing is learnt, and no object begins.

        Raises:
            InputError: as for click and box; or there is neither.
            NetworkError: a network failed.
        """
        size_hw = self._set().size_hw
        checked = [checked_click(click, size_hw) for click in clicks]
        checked_bounds = None if box is None else checked_box(box, size_hw)
        if not checked and checked_bounds is None:
            raise InputError("nothing to go by: give a click or a box")
        return self._set().drawn(self._ask(checked, checked_bounds, None).low_res)

    def undo(self) -> Mask | None:
        """Take the last prompt back, with what was learnt from it, and return the mask before it, or None.

        The earlier prompts are computed again, so only the state before the object has to be kept.

        Raises:
            NetworkError: a network failed; the prompt stays.
        """
        before = self._prompts, self._answers, self._state
        self.reset()
        try:
            for prompt in before[0][:-1]:
                self._prompt(prompt)
        except BaseException:
            self._prompts, self._answers, self._state = before
            raise
        return self.mask

    def reset(self) -> None:
        """Drop the object's prompts, and what was learnt from them."""
        self._state = self._state.back_to(self._start)
        self._prompts, self._answers = [], []

    def accept(self) -> Mask:
        """Learn from the object as the settings say, and begin the next one of the same image.

        Returns:
            The object, bool [H, W].

        Raises:
            InputError: there is no prompt.
            NetworkError: a network failed; the object stays.
        """
        mask = self.mask
        if mask is None:
            raise InputError("nothing to accept: click on the object first")
        self._finish(self.settings.result_mask)
        return mask

    def give_up(self, learn: bool = True) -> None:
        """End an object whose mask will not come right, and begin the next one of the same image.

        Its clicks are right and teach as the settings say; its mask teaches nothing. Without `learn`, no last step.

        Raises:
            InputError: there is no prompt.
            NetworkError: a network failed; the object stays.
        """
        if not self._answers:
            raise InputError("nothing to give up: click on the object first")
        self._finish("off" if learn else None)

    def use(self, name: str) -> None:
        """Go on with the decoder of a class; a new name starts from the bundle's decoder.

        Raises:
            InputError: an object is under way, or the name is empty.
        """
        if not name:
            raise InputError("a decoder needs a name: give that of a class")
        if self._prompts:
            raise InputError("an object is under way: accept it, or reset it, before another decoder is used")
        self._decoders.setdefault(name, AdamState.fresh(self._base))
        self.decoder = name
        self._start = self._state

    def save_decoder(self, path: Path | str) -> None:
        """Write the selected decoder's weights as safetensors, without what the object under way has taught.

        Raises:
            MaskrtError: the file cannot be written.
        """
        write_decoder(Path(path), on_host(self._start.weights), self._base_sha256)

    def load_decoder(self, name: str, path: Path | str) -> None:
        """Read a decoder that save_decoder wrote, and call it `name`; Adam's moments start at zero.

        Raises:
            InputError: an object is under way, or the name is empty.
            BundleError: the file is damaged, or belongs to another bundle.
        """
        if self._prompts:
            raise InputError("an object is under way: accept it, or reset it, before a decoder is loaded")
        if not name:
            raise InputError("a decoder needs a name: give that of a class")
        self._decoders[name] = AdamState.fresh(read_decoder(Path(path), self._base, self._base_sha256))
        self._start = self._state

    def state(self) -> dict[str, NDArray[Any]]:
        """Return copies of the selected decoder's weights, moments and counters, as before the object under way."""
        return to_arrays(replace(self._start, steps=self.steps, skipped=self.skipped_steps))

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put back what state() returned; an object under way is dropped.

        Raises:
            BundleError: the state is damaged or belongs to another decoder; all stays as it was.
        """
        restored = from_arrays(state, self._base)
        self.reset()
        self._state = self._start = restored

    def close(self) -> None:
        """Free the networks and the embeddings in memory."""
        self._embeddings.clear()
        self._networks.close()

    def _set(self) -> SessionImage:
        if self.image is None:
            raise InputError("there is no image: call set_image first")
        return self.image

    def _prompt(self, prompt: Click | Box) -> Mask:
        prompts = [*self._prompts, prompt]
        clicks, box = split_prompts(prompts)
        answer = self._ask(clicks, box, self._answers[-1].low_res if self._answers else None)
        state = self._state
        if self.settings.click_adaptation != "off" and isinstance(prompt, Click):
            state = self._step(state, self._set().click_example(answer, clicks), self.settings.learning_rate)
        self._prompts, self._state = prompts, state
        self._answers.append(answer)
        return self._set().drawn(answer.low_res)

    def _ask(self, clicks: Sequence[Click], box: Box | None, before: Floats | None) -> Answer:
        image, side = self._set(), self._sam.low_res_hw
        mask = np.zeros((1, 1, *side), np.float32) if before is None else before[None, None]
        feeds: dict[str, Tensor] = {
            "image_embeddings": image.embedding,
            **prompt_feeds(clicks, box, image.size_hw, image.input_hw),
            "mask_input": np.ascontiguousarray(mask),
            "has_mask_input": np.array([before is not None], np.float32),
        }
        masks, pred_iou = self._networks.ask(self._state.weights, feeds)
        ambiguous = before is None and box is None and len(clicks) == 1
        choice = 1 + int(pred_iou[AMBIGUOUS].argmax()) if ambiguous else SINGLE
        return Answer(feeds, choice, masks[choice].copy())

    def _finish(self, result_mask: Literal["off", "E", "U"] | None) -> None:
        """Learn from the object as a whole, or not at all for None, and forget its prompts."""
        settings = self.settings
        state = self._state.back_to(self._start) if settings.click_adaptation == "R" else self._state
        if result_mask is not None and (example := self._object_example(result_mask)) is not None:
            of_masks = None if result_mask == "off" else settings.mask_learning_rate
            state = self._step(state, example, of_masks or settings.learning_rate)
        self._state = self._start = state
        self._prompts, self._answers = [], []

    def _object_example(self, result_mask: Literal["off", "E", "U"]) -> TrainingExample | None:
        """Make one training example of the mask and the clicks; None where nothing is wanted or known."""
        image, answer, settings = self._set(), self._answers[-1], self.settings
        clicks = self.clicks if settings.click_mask else ()
        if result_mask == "off":
            return image.click_example(answer, clicks) if clicks else None
        return image.mask_example(answer, clicks, settings.erosions if result_mask == "E" else 0)


def open_interactive(
    bundle: Path | str | Bundle,
    provider: str = "cpu",
    threads: int | None = None,
    settings: Mapping[str, Any] | None = None,
    cache_images: int = 16,
    cache_dir: Path | str | None = None,
) -> InteractiveSession:
    """Verify a bundle of maskrt export interactive and load it for use in a `with` block.

    Args:
        bundle: the bundle's folder, or what open_bundle returned for it.
        provider: "cpu", "cuda", "cuda:1" and so on. "openvino" runs the encoder only; "tensorrt", after maskrt build,
            runs encoder and decoder; the CPU runs the rest.
        threads: threads of a network while it runs.
        settings: override the bundle's, such as {"learning_rate": 1e-5}; see AdaptationSpec.
        cache_images: how many embeddings are kept in memory.
        cache_dir: a folder to keep them in as well.

    Raises:
        BundleError: the bundle is not whole or of another kind, or there is no such setting.
        InputError: the provider cannot run a decoder that learns, or threads is no whole number from 1 to 1024.
        ProviderUnavailable: the provider is not on this machine.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    opened.expect(InteractiveManifest)
    threads = checked_threads(threads)
    return InteractiveSession(with_settings(opened, settings or {}), provider, threads, cache_images, cache_dir)
