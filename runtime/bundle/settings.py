"""Settings of a bundle: which there are, what they mean, and how a user overrides them."""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

from maskrt.runtime.bundle.bundle import Bundle
from maskrt.runtime.errors import BundleError

SpecT = TypeVar("SpecT", bound=msgspec.Struct)


def with_settings(bundle: Bundle, overrides: Mapping[str, Any]) -> Bundle:
    """Return the bundle with other settings, each routed to the first section of the manifest that knows it.

    Raises:
        BundleError: no section knows a setting, and the error lists all that there are; or a value has the wrong type.
    """
    manifest = bundle.manifest
    if not overrides:
        return bundle
    sections = {name: getattr(manifest, name) for name in manifest.sections}
    changed = routed(sections, overrides, f"{bundle.path}, of kind {manifest.kind},")
    overridden = bundle.overridden | overrides.keys()
    try:
        return replace(bundle, manifest=msgspec.structs.replace(manifest, **changed), overridden=overridden)
    except ValueError as error:  # settings of two sections that do not go together
        raise BundleError(f"setting not understood: {error}") from error


def routed(
    sections: Mapping[str, msgspec.Struct], overrides: Mapping[str, Any], owner: str = "this kind of bundle"
) -> dict[str, Any]:
    """Return the sections with some fields replaced, validated as if they came from a file.

    Args:
        sections: name -> spec. A setting goes to the first one that has a field of its name.
        owner: what the sections belong to, for the error.

    Raises:
        BundleError: see with_settings.
    """
    own: dict[str, dict[str, Any]] = {name: {} for name in sections}
    for key, value in overrides.items():
        place = next((name for name, spec in sections.items() if key in spec.__struct_fields__), None)
        if place is None:
            known = setting_lines(sections)
            error = BundleError(f"there is no setting {key}: {owner} has {'these:' if known else 'none'}")
            for line in known:
                error.add_note(line)
            raise error
        own[place][key] = value
    return {name: with_overrides(spec, own[name]) for name, spec in sections.items()}


def with_overrides(spec: SpecT, overrides: Mapping[str, Any]) -> SpecT:
    """Return a spec with some fields replaced, validated as if it came from a file.

    Raises:
        BundleError: an unknown field, or a value of the wrong type.
    """
    for name, value in overrides.items():  # a file cannot hold them: JSON has no such numbers
        if isinstance(value, float | np.floating) and not math.isfinite(value):
            raise BundleError(f"setting not understood: {name}={value}: give a finite number")
    given = {name: value.item() if isinstance(value, np.generic) else value for name, value in overrides.items()}
    try:
        return msgspec.convert(msgspec.to_builtins(spec) | given, type(spec))
    except msgspec.ValidationError as error:
        known = ", ".join(field.name for field in msgspec.structs.fields(spec))
        raise BundleError(f"setting not understood: {error}; there are: {known}") from error


def setting_lines(sections: Mapping[str, msgspec.Struct]) -> list[str]:
    """Return a line for every setting: KEY=VALUE as it is set, and its meaning."""
    found: dict[str, str] = {}
    for spec in sections.values():
        for name, meaning in meanings(type(spec)).items():
            value = getattr(spec, name)
            found.setdefault(name, f"{name}={as_text(value)}: {meaning}")
    return list(found.values())


def as_text(value: Any) -> str:
    """Return a setting's value as --set takes it: text without quotes, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def meanings(spec: type[msgspec.Struct]) -> dict[str, str]:
    """Return what every field of a spec means, as its annotation describes it."""
    hints = get_type_hints(spec, include_extras=True)
    return {name: _description(hints[name]) for name in spec.__struct_fields__}


def _description(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        for extra in get_args(hint)[1:]:
            if isinstance(extra, msgspec.Meta) and extra.description:
                return extra.description
    # For `Annotated[...] | None`, the first part that has a description.
    return next(filter(None, map(_description, get_args(hint))), "") if get_origin(hint) in (Union, UnionType) else ""
