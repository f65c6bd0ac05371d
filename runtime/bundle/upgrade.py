"""Upgrade of a bundle.json of an older version to today's names."""

from typing import Any

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
    """Return the content of a bundle.json of schema 1 to 3 under the names of schema 4; the values stay."""
    found: dict[str, Any] = _renamed(raw, SECTIONS.get(str(raw.get("kind")), {}))
    models = found.get("models")
    if isinstance(models, dict):
        found["models"] = {role: _renamed(entry, ENTRY) for role, entry in models.items()}
    if "patch_selection" in found:
        found["patch_selection"] = _renamed(found["patch_selection"], PATCH_SELECTION)
    return found


def _renamed(fields: Any, names: dict[str, str]) -> Any:
    return {names.get(name, name): value for name, value in fields.items()} if isinstance(fields, dict) else fields
