"""World models on frozen V-JEPA encoders, and planning with them."""
