"""Segments as resources: what the mapping guide calls segment maps."""
