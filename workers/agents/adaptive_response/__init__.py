"""Adaptive response: a question asked again, from an angle not used before.

- `answer`: the shape of its answers, and why one breaks its rules
- `angles`: other ways to search for what was asked before
"""
