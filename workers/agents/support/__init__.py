"""Support: what the knowledge base says, cited, or nothing."""
