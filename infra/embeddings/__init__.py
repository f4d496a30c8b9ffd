"""Texts as words and as vectors.

- `words`: words as search knows them
- `embedder`: the port, and what it raises
"""
