"""Measuring agents: episodes, task sets, statistics, reports."""
