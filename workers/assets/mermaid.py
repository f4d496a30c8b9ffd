"""A diagram as Mermaid source, in which no label can become anything but a label.

Mermaid decodes `#NNN;` in quoted labels after it has parsed them. So every character that is no letter, mark, digit or
space is written that way: no quote ends, no directive, link, HTML or Markdown begins.
"""

import unicodedata

from workers.assets.diagram import Diagram


def mermaid(diagram: Diagram) -> str:
    """Return a flowchart in Mermaid's language. Nodes get ids of ours: a model's could be a keyword."""
    names = {node.id: f"n{number}" for number, node in enumerate(diagram.nodes, start=1)}
    lines = [f"flowchart {diagram.direction}", f"  accTitle: {escaped(diagram.title)}"]
    lines += [f'  {names[node.id]}["{escaped(node.label)}"]' for node in diagram.nodes]
    for edge in diagram.edges:
        label = f'|"{escaped(edge.label)}"|' if edge.label else ""
        lines.append(f"  {names[edge.source]} -->{label} {names[edge.target]}")
    return "\n".join(lines) + "\n"


def escaped(label: str) -> str:
    """Return a label of which only letters, marks, digits and spaces stand for themselves."""
    return "".join(
        char if char == " " or unicodedata.category(char)[0] in "LMN" else f"#{ord(char)};" for char in label
    )
