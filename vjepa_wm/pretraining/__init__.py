"""Self-supervised pretraining of V-JEPA: masks, objective, collapse monitors."""
