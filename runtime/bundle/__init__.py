"""Bundles: the content of bundle.json, and how it is read and verified."""
