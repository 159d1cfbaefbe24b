"""LightningModules, one for each way of computing a step."""
