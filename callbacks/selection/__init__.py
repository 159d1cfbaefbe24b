"""Callbacks that choose the samples of an epoch, one rule per file."""
