"""Shipped recipes and overlays; a package only so that its YAML files are found once installed."""
