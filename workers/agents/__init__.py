"""The agents: what each is told, and the shape its answer must have.

- `instructions`: one text file for each agent, never mixed with what visitors wrote
- `shape`: the JSON shape of an answer
- `prompt`: instructions, past turns and the new message, within the agent's budget
"""
