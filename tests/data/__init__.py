"""Tests of trajectories, their collection and the latent cache."""
