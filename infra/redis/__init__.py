"""Live frames, and hints.

- `client`: connections with bounded waits
- `frame_log`: the fenced, numbered log of each turn's frames, and their publication
- `hub`: one subscription per process, shared by all watchers
- `wake`: announcing turns whose predecessor has settled
"""
