"""Transformer parts that every network of the toolkit is built from."""
