"""Reading of video files through PyAV: one plain file, one track, damage reported instead of passed on."""
