"""What the knowledge base says to a message.

- `researcher`: looking a message up: never late, never an exception
"""
