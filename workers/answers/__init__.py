"""From a model's streamed reply to what a visitor may see, in the order it happens.

- `extract`: `FieldScanner`, the text of one field of a JSON reply as it arrives
- `sanitise`: `HtmlStream`, that text as safe HTML of which every prefix is whole; `to_text` for prompts
- `terms`: what the text must keep to, judged while it is written, and what is added to it
- `closing`: the sources at its end, and what it may not pretend
- `guard`: what is about to become visible: held back until it is judged, ended where it is to end
- `gate`: how sure a model is of what its answer is about
- `attempt`: one model call, told apart by the commit point
- `writer`: one turn's visible content, numbered
- `publisher`: what all turns of a process show, in one script per flush
- `settle`: the ledger first, then the terminal frame, then the next turn
- `group`: the turns that ended with it, where it was the head of a group
- `last_tier`: what can be said without any model to whom none could answer
- `abandoned`: the same for turns whose owner is gone
"""
