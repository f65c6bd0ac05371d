"""SOSS: a segmenter says what a region is, and SAM says where it ends."""
