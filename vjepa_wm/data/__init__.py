"""Trajectories on disk, how they are collected, and the cache of their latents."""
