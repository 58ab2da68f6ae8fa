"""Training loops and losses; the verbs hand them models and data."""
