"""Hydra configs of the verbs, shipped as package data."""
