"""Callbacks around a run: progress, summary, interruption, finite losses, predictions."""
