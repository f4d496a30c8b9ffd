"""The agents: what each is told, and the shape its answer must have.

- `discovery`, `support`, `technical_consultant`, `adaptive_response`, `content_generator`: a folder for each, with its
  prompt and, in `answer`, the shape of its answers and why one breaks its rules
- `artefact`: an agent's prompt, read from its folder, with its version; what all are told is in `house.yaml`
- `lookup`: further searches, for parts of a question or from another angle
- `offered`: which passages of the knowledge base an agent is shown
- `quoting`: untrusted text, made fit to stand in a prompt
- `tokens`: how many tokens a message takes, safely
- `prompt`: instructions, past turns and the new message with its material, within the agent's budget
- `material`: the turn as the offline provider gets it
- `shape`: the shapes and rules of all agents, by agent
- `rules`: what an answer has to keep to in one turn
- `written`: what a model has written so far
- `phrases`: what we say ourselves, in the visitor's language
"""
