"""Frozen evaluation: heads trained on the tokens of a frozen encoder, and on floors beside it."""
