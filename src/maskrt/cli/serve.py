"""`maskrt serve`."""

from pathlib import Path
from typing import Annotated

import typer

from maskrt.cli.say import say
from maskrt.cli.shared import BundlePath, ClickProvider, Device, MaxMegapixels, Threads


def command(
    bundle: BundlePath,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all networks.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 is any free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="MASKRT_TOKEN",
            help="Token that tools must send; random if left out; none for no token, on 127.0.0.1 only.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", metavar="DIR", help="Label Studio: folder of its local files; DIR/upload holds its uploads."
        ),
    ] = None,
    label_studio: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Label Studio: fetch pictures from here, with LABEL_STUDIO_API_KEY."),
    ] = None,
    provider: ClickProvider = "cpu",
    device: Device = None,
    threads: Threads = None,
    cache_images: Annotated[int, typer.Option(min=1, help="How many pictures' embeddings to keep in memory.")] = 16,
    max_megapixels: MaxMegapixels = 50,
    max_megabytes: Annotated[
        float, typer.Option(min=0.001, help="Refuse requests and files with more megabytes.")
    ] = 64,
) -> None:
    """Serve masks to X-AnyLabeling and Label Studio.

    The tools send clicks and boxes. The bundle is one of maskrt export interactive. X-AnyLabeling: choose
    Remote-Server, and give it the URL, and the token as its API key. Masks come as polygons without holes, at most 1
    pixel beside the outline. Label Studio: connect a model with the URL, any user name, and the token as its password;
    the labeling configuration needs BrushLabels, and smart KeyPointLabels or RectangleLabels.

    A request may have up to 64 points and 100 boxes; requests take turns after each prompt. Requests of web pages are
    refused. The decoder learns nothing from these tools, and nothing is written. Tokens and pictures travel
    unencrypted: beyond this machine, use a network that you trust. Exit codes: 1 failed, 2 unusable input or options,
    130 ended with Ctrl-C.

    \b
    Example:
      maskrt serve export/demo/interactive
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
        listen(host, port) as listening,  # before the bundle is loaded, so that a taken port is reported at once
        open_interactive(bundle, on_device(provider, device), threads, cache_images=cache_images) as session,
    ):
        serve(session, bundle, listening, asked, pictures, limits, lambda line: say(line, err=True))
