"""Attacks on the agents, and what the parts that are no model make of them.

- `cases`: the attacks, read from `cases.yaml`
- `confined`: whether an attack stays what it is, a quotation, in the prompt that is built with it
- `takeover`: what a visitor sees if the model does all the attacker wants
- `suite`: both, class by class
"""
