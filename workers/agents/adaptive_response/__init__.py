"""Adaptive response: a question asked again, from an angle not used before."""
