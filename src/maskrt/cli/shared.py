"""Options that several commands have, declared once."""

from pathlib import Path
from typing import Annotated

import typer

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder written by maskrt export.")]
Region = Annotated[str | None, typer.Option("--roi", metavar="X,Y,W,H", help="Region of interest in pixels.")]
RegionFrom = Annotated[
    Path | None, typer.Option("--roi-from", metavar="DIR", help="Region of each image: roi_xywh in DIR/STEM.json.")
]
Provider = Annotated[
    str,
    typer.Option(
        help="cpu, cuda or ort-tensorrt; openvino or openvino-bf16; tensorrt after maskrt build. No fallback."
    ),
]
ClickProvider = Annotated[
    str,
    typer.Option(
        help="cpu or cuda; openvino or openvino-bf16 for the encoder; tensorrt, after maskrt build, for all but the "
        "step. No fallback."
    ),
]
Device = Annotated[int | None, typer.Option(min=0, help="Number of the GPU, counted from 0.")]
Kernels = Annotated[str, typer.Option(help="Where maskrt's own kernels run: cpu, or cuda on an NVIDIA GPU.")]
Precision = Annotated[
    str, typer.Option(help="fp32, or fp16 or int8 where maskrt export precisions put them into the bundle.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Of networks and kernels; their own choice if left out.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a bundle setting; may be repeated.")
]
Select = Annotated[
    str | None,
    typer.Option(
        "--select", help="Pixels to decode: full, bbox, contour, strided:N, adaptive; the bundle's if left out."
    ),
]
Tile = Annotated[int | None, typer.Option("--tile", min=16, help="Pixels of a side that are decoded at a time.")]
MemoryLimit = Annotated[
    int | None,
    typer.Option("--memory-limit", metavar="MB", min=1, help="Of the whole process; chooses the tile."),
]
MaxMegapixels = Annotated[float, typer.Option(min=0.000001, help="Refuse larger images.")]
