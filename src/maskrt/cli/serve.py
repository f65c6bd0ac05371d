"""`maskrt serve`."""

from pathlib import Path
from typing import Annotated

import typer

from maskrt.cli.shared import BundlePath, ClickProvider, Device, MaxMegapixels, Threads


def command(
    bundle: BundlePath,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="MASKRT_TOKEN", help="What tools have to send; random if left out. none: on 127.0.0.1 only."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", metavar="DIR", help="Label Studio: the root of its local files; DIR/upload its uploads."
        ),
    ] = None,
    label_studio: Annotated[
        str | None, typer.Option(metavar="URL", help="Label Studio: fetch pictures there, with LABEL_STUDIO_API_KEY.")
    ] = None,
    provider: ClickProvider = "cpu",
    device: Device = None,
    threads: Threads = None,
    cache_images: Annotated[int, typer.Option(min=1, help="Embeddings of pictures to keep.")] = 16,
    max_megapixels: MaxMegapixels = 50,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Refuse larger requests and files.")] = 64,
) -> None:
    """Answer to X-AnyLabeling and Label Studio: masks for clicks and boxes, from a bundle for interactive use.

    X-AnyLabeling: choose Remote-Server, give it the URL, and the token as its API key. Masks come as polygons, without
    holes, at most 1 pixel beside the outline. Label Studio: connect a model with the URL, any user name, and the token
    as its password; the labeling configuration needs BrushLabels, and smart KeyPointLabels or RectangleLabels.

    Nothing is learnt from what these tools ask, and nothing is written. Tokens and pictures travel unencrypted: beyond
    this machine, use a network that you trust. Ctrl-C stops it.

    \b
    Example:
      maskrt serve bundles/sam
      maskrt serve bundles/sam --host 0.0.0.0 --label-studio http://192.168.1.36:8080 --images /data/photos
    """
    from maskrt.cli.options import on_device
    from maskrt.runtime.interactive.session import open_interactive
    from maskrt.runtime.serve.access import token_for
    from maskrt.runtime.serve.server import Limits, listen, pictures_of, serve

    limits = Limits(int(max_megapixels * 1e6), int(max_megabytes * 1e6))
    asked = token_for(token, host)
    pictures = pictures_of(images, label_studio, limits)
    with (
        listen(host, port) as listening,  # before the bundle is loaded: a taken port is told at once
        open_interactive(bundle, on_device(provider, device), threads, cache_images=cache_images) as session,
    ):
        serve(session, bundle, listening, asked, pictures, limits, lambda line: typer.echo(line, err=True))
