"""The image of a session, the answers to its prompts, and the training examples that are made of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from maskrt.kernels.arrays import Floats, Mask
from maskrt.runtime.bundle.specs import SamSpec
from maskrt.runtime.engines.device_tensor import Tensor
from maskrt.runtime.interactive.clicks import Click
from maskrt.runtime.interactive.learning import TrainingExample
from maskrt.runtime.interactive.prompts import UNKNOWN, click_target, clicked_pixels, pruned
from maskrt.runtime.region import fit_size_hw
from maskrt.runtime.sam.interpolation import grid_weights, image_weights, interpolate


@dataclass(frozen=True, eq=False)
class Answer:
    """A prompt's answer: the decoder's inputs, the chosen mask's number, and that mask as low-res logits [l, l]."""

    feeds: dict[str, Tensor]
    choice: int
    low_res: Floats


@dataclass(frozen=True, eq=False)
class SessionImage:
    """The current image: its sizes, its embedding, and the weights that bring a low-res mask to its grids.

    rows, columns: for the image's own pixels; grid_rows, grid_columns: for the pixels that the encoder sees.
    """

    size_hw: tuple[int, int]
    input_hw: tuple[int, int]
    embedding: Tensor
    rows: Floats
    columns: Floats
    grid_rows: Floats
    grid_columns: Floats
    mask_threshold: float

    def drawn(self, low_res: Floats) -> Mask:
        """Draw a low-res mask in the image, bool [H, W]."""
        drawn: Mask = interpolate(self.rows, low_res, self.columns) > self.mask_threshold
        return drawn

    def click_example(self, answer: Answer, clicks: Sequence[Click]) -> TrainingExample:
        """Make a training example of clicks, with only the grid's rows and columns that hold one."""
        rows, columns, target = click_target(clicks, self.size_hw, self.input_hw)
        return TrainingExample(answer.feeds, answer.choice, self.grid_rows[rows], self.grid_columns[columns], target)

    def mask_example(self, answer: Answer, clicks: Sequence[Click], erosions: int) -> TrainingExample | None:
        """Make a training example of a mask whose outline is eroded away, and clicks; None where nothing is known."""
        inside = interpolate(self.grid_rows, answer.low_res, self.grid_columns) > self.mask_threshold
        target = pruned(inside, erosions)
        rows, columns, values = clicked_pixels(clicks, self.size_hw, self.input_hw)
        target[rows, columns] = values
        if (target == UNKNOWN).all():  # a step without a loss would still move along Adam's moments
            return None
        return TrainingExample(answer.feeds, answer.choice, self.grid_rows, self.grid_columns, target)


def input_size(sam: SamSpec, size_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width at which the encoder sees an image."""
    return fit_size_hw(size_hw, (sam.image_size, sam.image_size))


def session_image(sam: SamSpec, size_hw: tuple[int, int], embedding: Tensor) -> SessionImage:
    """Return an image whose embedding is known, with the weights of its grids."""
    low_res, square, input_hw = sam.low_res_hw[0], sam.image_size, input_size(sam, size_hw)
    rows, columns = (
        image_weights(low_res, square, length, size) for length, size in zip(input_hw, size_hw, strict=True)
    )
    grid_rows, grid_columns = (grid_weights(low_res, square, length) for length in input_hw)
    return SessionImage(size_hw, input_hw, embedding, rows, columns, grid_rows, grid_columns, sam.mask_threshold)
