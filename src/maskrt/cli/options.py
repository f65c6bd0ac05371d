"""Parses option values that need more than a type."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from maskrt.runtime.errors import InputError
from maskrt.runtime.evaluation.click_metrics import Limit
from maskrt.runtime.io.regions import RoiOf, roi_reader
from maskrt.runtime.types import Roi


def parse_roi(text: str) -> Roi:
    """Parse X,Y,W,H in pixels.

    Raises:
        InputError: the text is not four whole numbers.
    """
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--roi {text}: expected X,Y,WIDTH,HEIGHT in pixels, for example 400,200,640,480") from error
    return x, y, width, height


def parse_region(roi: str | None, roi_from: Path | None) -> Roi | RoiOf | None:
    """Return the region of --roi or --roi-from; None is the whole frame.

    Raises:
        InputError: both are given, or the given one cannot be used.
    """
    if roi is not None and roi_from is not None:
        raise InputError("--roi and --roi-from exclude each other: give only one of them")
    if roi is not None:
        return parse_roi(roi)
    return None if roi_from is None else roi_reader(roi_from)


def parse_size(text: str, option: str = "--size") -> tuple[int, int]:
    """Parse WIDTHxHEIGHT in pixels.

    Raises:
        InputError: the text is not two positive whole numbers.
    """
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise InputError(f"{option} {text}: expected WIDTHxHEIGHT, for example 1920x1080") from error
    if width < 1 or height < 1:
        raise InputError(f"{option} {text}: both sides must be positive")
    return width, height


def parse_triple(text: str, option: str) -> tuple[float, float, float]:
    """Parse R,G,B as numbers.

    Raises:
        InputError: the text is not three numbers.
    """
    numbers = parse_numbers(text, option)
    if len(numbers) != 3:
        raise InputError(f"{option} {text}: expected three numbers, for example 0.485,0.456,0.406")
    red, green, blue = numbers
    return red, green, blue


def parse_numbers(text: str, option: str) -> tuple[float, ...]:
    """Parse comma-separated numbers.

    Raises:
        InputError: one of them is not a number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text}: expected numbers, for example 0.485,0.456,0.406") from error


def parse_settings(texts: list[str]) -> dict[str, Any]:
    """Parse KEY=VALUE texts; a value that is JSON, such as 20 or 0.9, gets its type, any other is text.

    Raises:
        InputError: a text has no "=", or a key appears twice.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"--set {text}: expected KEY=VALUE, for example points_per_side=20")
        if key in settings:
            raise InputError(f"--set {key} is given twice")
        try:
            settings[key] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            settings[key] = value
    return settings


def parse_pairs(texts: list[str], option: str) -> dict[str, str]:
    """Parse NAME=VALUE texts; a name is anything before the first "=".

    Raises:
        InputError: name or value is missing, or a name appears twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value:
            raise InputError(f"{option} {text}: expected NAME=VALUE")
        if name in pairs:
            raise InputError(f"{option} {name} is given twice")
        pairs[name] = value
    return pairs


def parse_axes(texts: list[str]) -> dict[tuple[str, str, int], int]:
    """Parse GRAPH.INPUT.AXIS=N texts into (graph, input, axis) -> size.

    Raises:
        InputError: a text has another form, a size is below 1, or an axis appears twice.
    """
    axes: dict[tuple[str, str, int], int] = {}
    for text in texts:
        found = re.fullmatch(r"([^.=]+)\.([^=]+)\.([0-9]+)=([1-9][0-9]*)", text)
        if found is None:
            raise InputError(f"--size {text}: expected GRAPH.INPUT.AXIS=N, for example encoder.image.1=768")
        graph, name, axis, size = found.groups()
        key = graph, name, int(axis)
        if key in axes:
            raise InputError(f"--size {graph}.{name}.{key[2]} is given twice")
        axes[key] = int(size)
    return axes


def on_device(provider: str, device: int | None) -> str:
    """Return the provider as open_session takes it, such as "cuda:1" for cuda and 1."""
    return provider if device is None else f"{provider}:{device}"


def refine_options(select: str | None, tile: int | None, memory_limit: int | None) -> dict[str, Any]:
    """Return the refiner settings that were given on the command line."""
    given = {"select": select, "tile": tile, "memory_limit_mb": memory_limit}
    return {name: value for name, value in given.items() if value is not None}


def parse_counts(text: str | None, option: str) -> tuple[int, ...]:
    """Parse comma-separated whole numbers from 1; there are none if the option is left out.

    Raises:
        InputError: there is no number, or one is something else.
    """
    if text is None:
        return ()
    parts = parse_list(text)
    if not parts or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"{option} {text}: expected whole numbers from 1, for example 1,2")
    return tuple(int(part) for part in parts)


def parse_list(text: str) -> tuple[str, ...]:
    """Parse comma-separated names, in their order and without repetition."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def parse_limits(text: str) -> tuple[Limit, ...]:
    """Parse comma-separated CLICKS@PERCENT texts.

    Raises:
        InputError: a text has another form, or a limit is impossible.
    """
    limits = []
    for part in parse_list(text):
        found = re.fullmatch(r"(\d+)@(\d+(?:\.\d+)?)", part, re.ASCII)
        if found is None:
            raise InputError(f"--limits {text}: expected CLICKS@PERCENT, for example 20@85,30@90")
        limits.append(Limit(int(found[1]), float(found[2])))
    if not limits:
        raise InputError("--limits is empty: expected CLICKS@PERCENT, for example 20@85,30@90")
    return tuple(dict.fromkeys(limits))


def parse_names(text: str, option: str, known: Collection[str]) -> tuple[str, ...]:
    """Parse comma-separated known names, or "all".

    Raises:
        InputError: a name is unknown, or there is none.
    """
    names = tuple(known) if text == "all" else parse_list(text)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InputError(f"{option} {text}: expected all, or some of {', '.join(known)}")
    return names
