"""Small vectors in which similar texts are near."""

import array
import base64
import math
import re

from simulators.dialogues import stable_hash

DIMENSIONS = 256


def embed(text: str, dimensions: int) -> list[float]:
    """A unit vector of `dimensions` numbers, each word adding to three: texts that share words are near."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [""]:
        for salt in ("a", "b", "c"):
            place = stable_hash(salt + word)
            vector[place % dimensions] += 1.0 if (place >> 16) & 1 else -1.0
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]


def packed(vector: list[float]) -> str:
    """The vector as base64 of little-endian 32-bit floats."""
    return base64.b64encode(array.array("f", vector).tobytes()).decode()
