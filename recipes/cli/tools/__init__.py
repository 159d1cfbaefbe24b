"""Commands that look at a trained network."""
