"""Commands that analyze a trained network."""
