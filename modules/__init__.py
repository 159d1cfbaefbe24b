"""Networks, losses and pure functions for recipes. This package imports no other part of the project."""
