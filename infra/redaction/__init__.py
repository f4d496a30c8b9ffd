"""Personal data and secrets in a text, found without any model and replaced by placeholders.

- `redactor`: `Redactor`: a text in, the same text with `[email]`, `[phone]` in it out; the one of this process
- `spans`: what was found where; of findings that overlap one stays
- `secrets`: keys, tokens, passwords; the patterns that logs use as well
- `contacts`: e-mail and IP addresses
- `phones`: telephone numbers
- `numbers`: payment cards, bank accounts, national identity numbers, each by its checksum where it has one
- `people`: names and streets, where a cue makes it safe
- `rules`: the versioned data behind these, read from `rules.yaml`
"""
