"""`maskrt annotate`."""

from pathlib import Path
from typing import Annotated

import typer

from maskrt.cli.say import say
from maskrt.cli.shared import BundlePath, ClickProvider, Device, MaxMegapixels, Settings, Threads


def command(
    bundle: BundlePath,
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="Image, folder, or 'glob*' in quotes, to annotate.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the objects; an earlier run's folder is continued.")],
    classes: Annotated[
        str, typer.Option(help="Names of the classes, with commas; each class has its own decoder.")
    ] = "object",
    load: Annotated[
        list[str] | None,
        typer.Option("--load", metavar="NAME=FILE", help="Start a class from this decoder file; may be repeated."),
    ] = None,
    cache_images: Annotated[int, typer.Option(min=1, help="How many images' embeddings to keep in memory.")] = 16,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the web page; 0 is any free one.")] = 0,
    provider: ClickProvider = "cpu",
    device: Device = None,
    threads: Threads = None,
    settings: Settings = None,
    max_megapixels: MaxMegapixels = 50,
) -> None:
    """Click objects on a local web page.

    SAM's mask decoder learns from the clicks. The command prints an address that works in a browser on this machine
    only, and serves until Ctrl-C. No picture is copied. An accepted object is on disk at once: in OUT/masks/STEM.png, a
    label picture with k where the picture's k-th object is, and in OUT/annotations.json, in COCO form. The decoders go
    to OUT/decoders/CLASS.safetensors at the end and with the key S. The same --out goes on from all of that, for one
    maskrt annotate at a time; a label picture that is not as annotations.json says is drawn again.

    Settings (--set): click_adaptation is a step after each click: R is undone after the object, C is kept, or off.
    result_mask is a step on the accepted mask: E erodes its outline, U leaves it untreated, or off. click_mask (true,
    false) adds the object's clicks to its last step. erosions, learning_rate and mask_learning_rate are numbers.

    Exit codes: 0 ended with Ctrl-C, 1 failed, 2 unusable input or options.

    \b
    Example:
      maskrt scenes --domain novel --seed 920000 --count 6 --out out/novel
      maskrt annotate export/demo/interactive out/novel/images --out out/annotated --classes star,rosette
      maskrt annotate bundles/interactive 'ward/**/*.png' --out out/ward --set click_adaptation=C
    """
    import starlette  # noqa: F401  a missing package is reported before a model is loaded
    import uvicorn  # noqa: F401

    from maskrt.cli.options import on_device, parse_list, parse_pairs, parse_settings
    from maskrt.runtime.annotate.annotator import load_decoders
    from maskrt.runtime.annotate.app import make_app
    from maskrt.runtime.annotate.coco import check_classes
    from maskrt.runtime.annotate.desk import Desk
    from maskrt.runtime.annotate.guard import new_token
    from maskrt.runtime.annotate.lock import only_one
    from maskrt.runtime.annotate.pictures import find_pictures
    from maskrt.runtime.annotate.server import HOST, listen, serve
    from maskrt.runtime.annotate.store import ANNOTATIONS, MASKS, Store
    from maskrt.runtime.interactive.session import open_interactive

    class_names = parse_list(classes)
    check_classes(class_names)
    options, given = parse_settings(settings or []), parse_pairs(load or [], "--load")
    pictures = find_pictures(images)
    with (
        only_one(out),
        listen(port) as sock,
        open_interactive(bundle, on_device(provider, device), threads, options, cache_images) as session,
    ):
        store = Store(out, class_names)
        for names, what in (
            (store.made_again, f"not as {ANNOTATIONS} says: drawn again"),
            (store.unknown, f"not in {ANNOTATIONS}: left as they are"),
        ):
            if names:
                say(f"{len(names)} of {out / MASKS} {what}: {', '.join(names[:3])}", err=True)
        load_decoders(session, store, {name: Path(file) for name, file in given.items()})
        desk = Desk(session, pictures, store, int(max_megapixels * 1e6))
        token = new_token()

        def begin() -> None:
            say(f"http://{HOST}:{sock.getsockname()[1]}/{token}/")
            say("Open this address in a browser on this machine. Ctrl-C saves the decoders and ends.")

        serve(make_app(desk, token), sock, begin, desk.finish)
    say(f"{len(store.annotations)} objects on {len(store.annotated)} images: {out}")
