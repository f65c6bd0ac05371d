"""SOSS: a segmenter says what a region is, SAM says where it ends."""
