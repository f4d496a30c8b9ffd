"""Content generator: one-pagers, outlines and diagrams.

- `answer`: the shape of its answers, and why one breaks its rules
"""
