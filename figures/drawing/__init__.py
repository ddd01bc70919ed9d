"""Drawings: the common style, shared panels, and the figures that are more than a panel. Data and axes in, axes out."""
