"""Encoders: the video ViT, frozen for planning, and where to find trained ones."""
