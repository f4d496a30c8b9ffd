"""Every topic, key and channel, spelled once."""

from schemas.ids import TurnId

TOPIC_TURNS = "fairlead.turns"
TOPIC_RESULTS = "fairlead.results"
TOPIC_DEAD_LETTERS = "fairlead.turns.dlq"
TOPICS = (TOPIC_TURNS, TOPIC_RESULTS, TOPIC_DEAD_LETTERS)

GROUP_ORCHESTRATOR = "fairlead.orchestrator"
GROUP_DEAD_LETTERS = "fairlead.dead-letters"

TASK_ANSWER = "fairlead.answer"
"""The one Celery task: a turn's id, handed to the worker's event loop."""

CELERY_PREFIX = "fl:"
"""Key prefix of everything Celery keeps in Redis."""

CHANNEL_WAKE = "fl:wake"
"""Redis channel that announces turns whose predecessor has settled. A hint: losing it costs latency."""


def partition_key(tenant: str, conversation: str) -> str:
    """Return the Kafka key: turns of one conversation share a partition."""
    return f"{tenant}:{conversation}"


def conversation_channel(tenant: str, conversation: str) -> str:
    """Return the Redis channel that carries the frames of a conversation."""
    return f"fl:c:{tenant}:{conversation}"


def fence_key(turn: TurnId) -> str:
    """Return the key of the hash that says which epoch may write this turn's frames."""
    return f"fl:t:{{{turn}}}:fence"


def log_key(turn: TurnId) -> str:
    """Return the key of the list that holds this turn's frames for replay."""
    return f"fl:t:{{{turn}}}:log"
