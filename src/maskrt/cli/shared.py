"""Options that several commands have, declared once."""

from pathlib import Path
from typing import Annotated

import typer

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that maskrt export wrote.")]
Region = Annotated[
    str | None, typer.Option("--roi", metavar="X,Y,W,H", help="Region of interest of all images, in pixels.")
]
RegionFrom = Annotated[
    Path | None, typer.Option("--roi-from", metavar="DIR", help="Region of each image: roi_xywh in DIR/STEM.json.")
]
Provider = Annotated[
    str,
    typer.Option(
        help="Engine and hardware for the networks: cpu, cuda, ort-tensorrt, openvino, openvino-bf16; tensorrt after "
        "maskrt build. If it is absent, the command fails."
    ),
]
ClickProvider = Annotated[
    str,
    typer.Option(
        help="Engine and hardware for the networks: cpu or cuda; openvino or openvino-bf16 for the encoder only; "
        "tensorrt, after maskrt build, for encoder and decoder. If it is absent, the command fails."
    ),
]
Device = Annotated[int | None, typer.Option(min=0, help="Number of the GPU to use, counted from 0.")]
Kernels = Annotated[str, typer.Option(help="Where maskrt's own kernels run: cpu, or cuda on an NVIDIA GPU.")]
Precision = Annotated[
    str,
    typer.Option(help="Precision of the networks: fp32; or fp16 or int8 if maskrt export precisions added them."),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, max=1024, help="Threads that each network and kernel may use; each decides for itself if left out."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a setting of the bundle; may repeat. A wrong KEY lists all keys."
    ),
]
Select = Annotated[
    str | None,
    typer.Option(
        "--select", help="Pixels to decode: full, bbox, contour, strided:N or adaptive; the bundle's if left out."
    ),
]
Tile = Annotated[
    int | None,
    typer.Option("--tile", min=16, help="Side in pixels of the tiles that are decoded; the bundle's if left out."),
]
MemoryLimit = Annotated[
    int | None,
    typer.Option(
        "--memory-limit",
        metavar="MB",
        min=1,
        help="Memory that the whole process may use; tiles shrink to fit into it.",
    ),
]
Track = Annotated[
    str | None,
    typer.Option("--track", metavar="N|TITLE", help="Track of a video, where several have pictures; N counts from 0."),
]
MaxMegapixels = Annotated[float, typer.Option(min=0.000001, help="Refuse images with more megapixels.")]
