"""What `fairlead kb add` shows."""

from cli.kb_add import line
from workers.knowledge.ingest import Told


def test_a_line_is_harmless() -> None:
    """Neither a file's name nor a server's words can command the terminal or begin a line of their own."""
    told = Told(source="docs/evil\x1b[31m\n.md", outcome="failed", problem="It is\x07 broken.")
    assert line(told) == "failed    docs/evil\N{REPLACEMENT CHARACTER}[31m .md  It is\N{REPLACEMENT CHARACTER} broken."
    assert line(Told(source="a.md", outcome="added", pieces=1)) == "added     a.md  1 piece"
    assert line(Told(source="a.md", outcome="removed")) == "removed   a.md"
