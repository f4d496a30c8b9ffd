"""Answers made of the turn itself, without a model: quotations with their numbers, questions, outlines, steps."""

import html
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final, cast

import yaml
from pydantic import JsonValue

from schemas.agents import Agent
from schemas.knowledge import Passage
from schemas.materials import Material
from workers.agents.adaptive_response.answer import overlap
from workers.agents.phrases import Phrases, phrases
from workers.agents.technical_consultant.parts import parts

LABEL: Final = "(offline) "
"""Every answer begins with it: nobody shall take rules for a model."""

Fields = dict[str, JsonValue]

_QUOTED_SOURCES: Final = 3
_MOST_STEPS: Final = 12
_LONGEST_QUOTE: Final = 320
_LONGEST_STEP: Final = 70
_MOST_HEARD: Final = 80
_TOLD_ALREADY: Final = 0.3
_SENTENCE: Final = re.compile(r"(?<=[.!?…])\s+(?=\S)|\n+")
_MARK: Final = re.compile(r"^\s*(?:\d{1,2}[.)]|[-*•])\s+")
_DRAWN: Final = re.compile(
    r"diagram|flow|chart|process|steps?\b|ablauf|schritte|prozess|schéma|étapes|processus|esquema|pasos|proceso|"
    r"schema|passaggi|passos|stroomschema|stappen|schemat|kroki",
    re.IGNORECASE,
)


def compose(material: Material, dimensions: Sequence[str]) -> Fields:
    """Return the fields of an answer; `dimensions` are those its shape allows, the most urgent first."""
    said = phrases(material.brief.language)
    match material.agent:
        case Agent.CONTENT_GENERATOR:
            return _outline(material, said)
        case Agent.SUPPORT | Agent.TECHNICAL_CONSULTANT | Agent.ADAPTIVE_RESPONSE:
            return _quotations(material, said, dimensions)
        case _:
            return _question(material, said, dimensions)


def quote(passage: Passage, question: str) -> str:
    """Return the sentences of a passage that have most words of the question, those beside each other together."""
    sentences = [part for part in map(str.strip, _SENTENCE.split(passage.text)) if part]
    wanted = _words(question)
    scores = [len(wanted & _words(sentence)) for sentence in sentences]
    if not sentences:
        return ""
    best = max(range(len(sentences)), key=lambda at: (2 * scores[at] + sum(scores[at + 1 : at + 2]), -at))
    return _cut(_MARK.sub("", " ".join(sentences[best : best + 2])), _LONGEST_QUOTE)


def steps(passages: Sequence[Passage]) -> tuple[int, list[str]]:
    """Return the first passage with a list of steps, by its number, and the steps; 0 where there is none."""
    for number, passage in enumerate(passages, start=1):
        found = [_MARK.sub("", line) for line in passage.text.splitlines() if _MARK.match(line)]
        if len(found) > 1:
            return number, [_cut(line, _LONGEST_STEP) for line in found[:_MOST_STEPS]]
    return 0, []


def _question(material: Material, said: Phrases, dimensions: Sequence[str]) -> Fields:
    heard = _cut(" ".join(material.text.replace("?", "").replace("？", "").split()), _MOST_HEARD)
    dimension, question = _asked(material, dimensions)
    text = f"{said.heard.replace('{quoted}', heard)} {question}" if heard else question
    return {"dimension": dimension, "html_response": f"<p>{_escaped(LABEL + text)}</p>"}


def _asked(material: Material, dimensions: Sequence[str]) -> tuple[str, str]:
    """Return the first open dimension that has a question in the visitor's language or in English, and it."""
    known = {*material.asked, *(fact.dimension for fact in material.brief.facts)}
    table = _questions()
    names = [name for name in dimensions or table if name in table]
    name = next((name for name in names if name not in known), names[-1] if names else "pain_points")
    worded = table[name]
    return name if name in dimensions or not dimensions else dimensions[0], worded.get(
        material.brief.language, worded["en"]
    )


def _quotations(material: Material, said: Phrases, dimensions: Sequence[str]) -> Fields:
    claims, unknown = (dimensions[0], dimensions[-1]) if dimensions else ("support", "not_found")
    chosen = _chosen(material) if claims != unknown else []
    quoted = [(part, number, quote(material.passages[number - 1], part)) for part, number in chosen]
    if material.agent is Agent.ADAPTIVE_RESPONSE:
        quoted = [one for one in quoted if overlap(one[2], material.told, words=3) < _TOLD_ALREADY]
    if not quoted:
        heard = said.heard.replace("{quoted}", _cut(" ".join(material.text.split()), _MOST_HEARD))
        return {"dimension": unknown, "citations": [], "html_response": f"<p>{_escaped(LABEL + heard)}</p>"}
    several = len({part for part, _, _ in quoted}) > 1
    blocks = [f"<p>{_escaped(LABEL + said.documents_say)}</p>"]
    for part in dict.fromkeys(part for part, _, _ in quoted):
        if several:
            blocks.append(f"<p>{_escaped(said.about.replace('{part}', part))}</p>")
        items = (f"<li>“{_escaped(text)}” [{number}]</li>" for of, number, text in quoted if of == part)
        blocks.append(f"<ul>{''.join(items)}</ul>")
    citations: list[JsonValue] = list(dict.fromkeys(number for _, number, _ in quoted))
    return {"dimension": claims, "citations": citations, "html_response": "".join(blocks)}


def _chosen(material: Material) -> list[tuple[str, int]]:
    """Return what to quote, as the part of the question and the number of the passage: the best ones, each once."""
    if material.agent is not Agent.TECHNICAL_CONSULTANT:
        return [(material.text, number) for number in _readable(material)[:_QUOTED_SOURCES]]
    chosen: list[tuple[str, int]] = []
    for part in parts(material.text, most=_QUOTED_SOURCES):
        wanted, taken = _words(part), {number for _, number in chosen}
        left = [n for n in _readable(material) if n not in taken]
        scores = {n: len(wanted & _words(_all_of(material.passages[n - 1]))) for n in left}
        best = max(left, key=lambda n: (scores[n], -n), default=0)
        if best and scores[best]:
            chosen.append((part, best))
    return chosen


def _readable(material: Material) -> list[int]:
    """Return the numbers of the passages in the visitor's language, of all where none is: nothing translates here."""
    spoken = {"", material.brief.language}
    numbers = [number for number, passage in enumerate(material.passages, start=1) if passage.language in spoken]
    return numbers or [*range(1, len(material.passages) + 1)]


def _outline(material: Material, said: Phrases) -> Fields:
    topic = _cut(" ".join(material.text.split()), _MOST_HEARD)
    blocks = [f"<h3>{_escaped(LABEL + said.outline.replace('{topic}', topic))}</h3>"]
    shown = _readable(material)[:_QUOTED_SOURCES]
    for number in shown:
        passage = material.passages[number - 1]
        heading = passage.heading.rpartition(" > ")[2] or passage.title
        blocks.append(f"<h4>{_escaped(heading)}</h4>" if heading else "")
        blocks.append(f"<p>“{_escaped(quote(passage, material.text))}” [{number}]</p>")
    number, found = steps(material.passages)
    if found:
        blocks.append(f"<h4>{_escaped(said.steps)} [{number}]</h4>")
        blocks.append(f"<ol>{''.join(f'<li>{_escaped(step)}</li>' for step in found)}</ol>")
    blocks.append(f"<p>{_escaped(said.to_fill_in)}</p>")
    cited: set[int] = {*shown, *([number] if number else [])}
    drawn = _diagram(topic, found) if found and _DRAWN.search(material.text) else None
    citations: list[JsonValue] = [*sorted(cited)]
    return {"dimension": "content", "citations": citations, "html_response": "".join(blocks), "diagram": drawn}


def _diagram(title: str, labels: Sequence[str]) -> JsonValue:
    """Return the steps one after the other."""
    nodes: list[JsonValue] = [{"id": f"s{n}", "label": label} for n, label in enumerate(labels, start=1)]
    edges: list[JsonValue] = [{"from": f"s{n}", "to": f"s{n + 1}", "label": ""} for n in range(1, len(labels))]
    return {"title": title, "nodes": nodes, "edges": edges}


@cache
def _questions() -> Mapping[str, Mapping[str, str]]:
    """Return the questions of discovery's taxonomy and our own, by dimension and language."""
    ours = resources.files("workers.providers").joinpath("offline_questions.yaml").read_text(encoding="utf-8")
    table = cast("dict[str, dict[str, str]]", yaml.safe_load(ours))
    taxonomy = resources.files("workers.agents.discovery").joinpath("taxonomy.yaml")
    if taxonomy.is_file():
        read = cast("dict[str, Any]", yaml.safe_load(taxonomy.read_text(encoding="utf-8")))
        theirs = {**read["dimensions"], "next_steps": read["next_steps"]}
        table = {**table, **{name: one["questions"] for name, one in theirs.items()}}
    return table


def _words(text: str) -> set[str]:
    return {word[:6] for word in re.findall(r"\w+", text.casefold()) if len(word) > 3 or word.isdigit()}


def _all_of(passage: Passage) -> str:
    return f"{passage.title} {passage.heading} {passage.text}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)
