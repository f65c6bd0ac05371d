"""Upgrade of a bundle.json of an older version to today's names."""

from typing import Any

from maskrt.runtime.errors import BundleError

RENAMED = 4  # the schema whose names are today's
# Kind -> section: its name in schema 1 to 3 -> its name today.
SECTIONS = {
    "soss": {"selection": "patch_selection", "refine": "refinement"},
    "refine": {"refine": "refinement"},
    "two_stage": {"stages": "two_stage", "selection": "patch_selection"},
    "interactive": {"adapt": "adaptation"},
}
ENTRY = {"source": "checkpoint", "source_sha256": "checkpoint_sha256"}
PATCH_SELECTION = {"undecided": "uncertainty"}


def upgraded(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a bundle.json of schema 1 to 3 under the names of schema 4; the values stay.

    Raises:
        BundleError: it has a field twice, under its old name and its new one.
    """
    found: dict[str, Any] = _renamed(raw, SECTIONS.get(str(raw.get("kind")), {}))
    models = found.get("models")
    if isinstance(models, dict):
        found["models"] = {role: _renamed(entry, ENTRY) for role, entry in models.items()}
    if "patch_selection" in found:
        found["patch_selection"] = _renamed(found["patch_selection"], PATCH_SELECTION)
    return found


def _renamed(fields: Any, names: dict[str, str]) -> Any:
    if not isinstance(fields, dict):
        return fields
    if twice := [f"{old} and {new}" for old, new in names.items() if old in fields and new in fields]:
        raise BundleError(f"bundle.json has both {', '.join(twice)}, which are one field: export the bundle again")
    return {names.get(name, name): value for name, value in fields.items()}
