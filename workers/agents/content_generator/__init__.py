"""Content generator: one-pagers, outlines and diagrams."""
