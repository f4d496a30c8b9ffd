"""The agents: what each is told, and the shape its answer must have.

- `discovery`, `support`, `technical_consultant`, `adaptive_response`, `content_generator`: a folder for each
- `artefact`: an agent's prompt, read from its folder, with its version
- `shape`: the JSON shape of an answer
- `rules`: what an answer has to keep to in one turn
- `tokens`: how many tokens a message takes, safely
- `prompt`: instructions, past turns and the new message, within the agent's budget
"""
