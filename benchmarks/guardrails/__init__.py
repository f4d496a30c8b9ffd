"""What the guardrails stop of labelled samples, and what of them they stop by mistake."""
