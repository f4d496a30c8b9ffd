"""What is measured, one module a question; each prints one JSON line."""
