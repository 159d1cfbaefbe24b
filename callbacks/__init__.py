"""Callbacks that work with any LightningModule."""
