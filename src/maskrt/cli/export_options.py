"""Options that several commands of `maskrt export` share."""

from typing import Annotated, Literal, cast

import typer

Scale = Annotated[
    Literal["1", "255"] | None,
    typer.Option(
        help="Largest value of the RGB that --mean and --std are of; 1 if left out, and then none may be above."
    ),
]
Output = Annotated[
    str | None, typer.Option(metavar="NAME", help="onnx: which output to take; any value of the graph will do.")
]
Activation = Annotated[
    Literal["logits", "sigmoid", "softmax", "none"] | None,
    typer.Option(
        help="onnx: what the model ends with; logits is nothing; none means probabilities, whatever made them. If left "
        "out, its last node says."
    ),
]
Bgr = Annotated[
    bool, typer.Option("--bgr", help="onnx: the model takes blue, green, red; --mean and --std stay R,G,B.")
]
Upsample = Annotated[
    bool, typer.Option("--upsample", help="onnx: resize maps that are smaller than the picture bilinearly.")
]
RoiExpected = Annotated[
    bool, typer.Option("--roi-expected", help="Note that the models were trained on regions of interest.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export at --out.")]


def scale_of(text: str | None) -> Literal[1, 255] | None:
    """Return --scale as a number."""
    return None if text is None else cast(Literal[1, 255], int(text))
