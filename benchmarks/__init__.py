"""Peers, benchmark cases and the procedural scenes they run on."""
