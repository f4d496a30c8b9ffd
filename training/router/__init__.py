"""The orchestrator's classifier: what it learns from, and how.

- `utterances`: labelled messages: templates of each language, expanded; those worded one by one (`loose`,
  `situations_*`), and those held out (`held_out`)
- `en`, `de`, `fr`, `es`, `it`: the templates; `words_*`: more of them, few frames with many words
- `fitting`: features, weights, temperature; measures
- `__main__`: trains it and writes the files that serve
"""
