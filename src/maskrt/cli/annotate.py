"""`maskrt annotate`."""

from pathlib import Path
from typing import Annotated

import typer

from maskrt.cli.shared import BundlePath, ClickProvider, Device, MaxMegapixels, Settings, Threads


def command(
    bundle: BundlePath,
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="Image, folder, or 'glob*' in quotes.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the objects; one that exists is gone on with.")],
    classes: Annotated[str, typer.Option(help="Names of classes; each has a decoder that learns.")] = "object",
    load: Annotated[
        list[str] | None,
        typer.Option("--load", metavar="NAME=FILE", help="Decoder of a class to start from; may be repeated."),
    ] = None,
    cache_images: Annotated[int, typer.Option(min=1, help="Embeddings of images to keep in memory.")] = 16,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any that is free.")] = 0,
    provider: ClickProvider = "cpu",
    device: Device = None,
    threads: Threads = None,
    settings: Settings = None,
    max_megapixels: MaxMegapixels = 50,
) -> None:
    """Click objects on a local web page, with a decoder that learns from the clicks.

    Prints an address that works in a browser on this machine only, and serves until Ctrl-C. Every accepted object is
    on disk at once: OUT/masks/STEM.png, a label picture with k where the picture's k-th object is, and
    OUT/annotations.json in COCO form. OUT/decoders/CLASS.safetensors are written at the end and with the key S; the
    same --out goes on from all of that. No picture is copied. Settings (--set): click_adaptation (off, R, C),
    result_mask (off, E, U), click_mask, erosions, learning_rate, mask_learning_rate.

    \b
    Example:
      maskrt annotate bundles/interactive ward/ --out out/ward --classes mattress,blanket
      maskrt annotate bundles/interactive 'ward/**/*.png' --out out/ward --set click_adaptation=C
    """
    import starlette  # noqa: F401  what is not installed is said before a model is loaded
    import uvicorn  # noqa: F401

    from maskrt.cli.options import on_device, parse_list, parse_pairs, parse_settings
    from maskrt.runtime.annotate.annotator import load_decoders
    from maskrt.runtime.annotate.app import make_app
    from maskrt.runtime.annotate.coco import check_classes
    from maskrt.runtime.annotate.desk import Desk
    from maskrt.runtime.annotate.guard import new_token
    from maskrt.runtime.annotate.pictures import find_pictures
    from maskrt.runtime.annotate.server import listen, serve
    from maskrt.runtime.annotate.store import Store
    from maskrt.runtime.interactive.session import open_interactive

    names = parse_list(classes)
    check_classes(names)
    options, given = parse_settings(settings or []), parse_pairs(load or [], "--load")
    pictures = find_pictures(images)
    with (
        listen(port) as sock,
        open_interactive(bundle, on_device(provider, device), threads, options, cache_images) as session,
    ):
        store = Store(out, names)
        load_decoders(session, store, {name: Path(file) for name, file in given.items()})
        desk = Desk(session, pictures, store, int(max_megapixels * 1e6))
        token = new_token()
        print(f"http://127.0.0.1:{sock.getsockname()[1]}/{token}/", flush=True)
        print("Open this address in a browser on this machine. Ctrl-C saves the decoders and ends.", flush=True)
        try:
            serve(make_app(desk, token), sock)
        finally:
            desk.finish()
    print(f"{len(store.annotations)} objects on {len(store.annotated)} images: {out}")
