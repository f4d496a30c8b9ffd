"""What left its lane, in order.

- `replays`: dead letters that an operator lets be answered anew
"""
