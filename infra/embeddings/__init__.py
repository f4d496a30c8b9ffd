"""Texts as words and as vectors.

- `words`: words as search knows them
- `embedder`: the port, and what it raises
- `endpoint`: vectors from any endpoint with OpenAI's API
- `configured`: the embedder that the settings name
- `latent`: the embedded default: vectors fitted on the texts themselves
"""
