"""Discovery: one question a turn, from a finite taxonomy.

- `answer`: the shape of its answers
"""
