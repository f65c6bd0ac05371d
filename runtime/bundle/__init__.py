"""Bundles: what bundle.json says, and how it is read and verified."""
