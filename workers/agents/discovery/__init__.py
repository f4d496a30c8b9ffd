"""Discovery: one question a turn, from a finite taxonomy."""
