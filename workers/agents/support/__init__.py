"""Support: what the knowledge base says, cited, or nothing.

- `answer`: the shape of its answers, and why one breaks its rules
"""
