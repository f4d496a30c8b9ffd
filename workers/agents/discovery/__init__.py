"""Discovery: one question a turn, from a finite taxonomy.

- `taxonomy`: the dimensions, read from `taxonomy.yaml`: what each means, its signals, one written question
- `answer`: the shape of an answer in one turn, without the dimensions that are known or were asked
- `checks`: what discovery never says
- `learning`: what a message tells about its buyer, by rules
"""
