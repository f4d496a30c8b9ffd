"""Technical consultant: questions about several things at once, each looked up.

- `answer`: the shape of its answers, and why one breaks its rules
- `parts`: a question taken apart
"""
