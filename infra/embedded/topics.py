"""Fairlead's topics on a broker that starts empty."""

from collections.abc import Mapping

from schemas.names import TOPIC_DEAD_LETTERS, TOPIC_RESULTS, TOPIC_TURNS

PARTITIONS: Mapping[str, int] = {TOPIC_TURNS: 8, TOPIC_DEAD_LETTERS: 4, TOPIC_RESULTS: 8}
"""Topic and number of partitions, on one machine."""
