"""Implementations by others, or written to be obviously right, that ours are held against."""
