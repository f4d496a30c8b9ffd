"""The command line, and the documents it writes from the code.

- `contracts`: JSON Schemas, AsyncAPI and OpenAPI below `docs`, and whether they still say what the code does
- `asyncapi`: the three topics as a document
"""
