"""Parts that the selection rules share."""
