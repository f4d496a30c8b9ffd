"""How documents come into a knowledge base, in order.

- `sources`: from what somebody named to the files and pages that are meant
- `addresses`: which addresses of the network may be spoken to
- `fetch`: a page by its URL, from checked addresses only
- `media`: what kind of document some bytes are
- `characters`: bytes become text without anything invisible
- `blocks`: a document between reading and cutting
- `markdown`, `webpage`, `plain`, `portable`, `questions`: one reader for each kind of document
- `read`: from bytes to a document, whatever its kind
- `pieces`: blocks cut into parts that can be found and quoted
- `reader`: the same in a process that may be ended
- `ingest`: all of them into the store, those only that have changed
"""
