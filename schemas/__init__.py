"""The vocabulary: what every process says to every other."""
