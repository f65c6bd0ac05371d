"""The peers that ours are compared with: by others, or written to be obviously right."""
