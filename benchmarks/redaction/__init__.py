"""How much personal data the redaction finds, what it hits by mistake, and what it costs."""
