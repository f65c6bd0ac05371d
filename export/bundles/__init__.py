"""Bundles written whole: each kind's export with its checks."""
