"""What the verb benchmark measures, a file per subject; no figure without a baseline beside it."""
