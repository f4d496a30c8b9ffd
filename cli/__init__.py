"""The command line: `fairlead`. One module composes each command; `main` lists them.

- `main`: the commands
- `serve`: one process of a distributed installation
- `access`: tenants, API keys and site keys
- `up`: the whole system on this machine
- `supervisor`: child processes, their logs and their end
- `endpoints`: where a running system can be reached
- `doctor`: what is missing or unreachable, and how to mend it
- `chat`: talking to a running system
- `demo`: a visible conversation, from nothing
- `asyncapi`: the three topics as a document
- `contracts`: JSON Schemas, AsyncAPI and OpenAPI documents
"""
