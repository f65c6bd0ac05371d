"""The Segment Anything Model: finds every mask of a picture, and draws masks for prompts."""
