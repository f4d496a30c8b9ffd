"""How small models go wrong while their server is well: each way spoils one whole answer."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias, cast, get_args

from pydantic import JsonValue

from simulators.dialogues import stable_hash
from simulators.prompts import Prompt
from simulators.shapes import Schema

Misbehaviour: TypeAlias = Literal[
    "prose",
    "wrong_enum",
    "misjudged",
    "repeated",
    "stacked",
    "no_question",
    "generic",
    "bleed",
    "echo",
    "extra_keys",
    "missing_keys",
    "wrong_language",
    "truncated_json",
    "markup",
]
MISBEHAVIOURS: Final[tuple[Misbehaviour, ...]] = get_args(Misbehaviour)

KNOWN: Final = (
    "pain_points",
    "trigger",
    "impact",
    "current_solution",
    "timeline",
    "budget",
    "decision_process",
    "team",
    "volume",
    "integrations",
    "compliance",
    "success_criteria",
)
"""What a discovery model was tuned to ask about."""

_EXAMPLE: Final = re.compile(r"^Right: (\{.*\})$", re.MULTILINE)
_GERMAN: Final = (
    "<p>Das klingt anstrengend, und wir sehen das bei Kunden nicht selten. "
    "Wie viele Stunden kostet das Ihr Team in der Woche?</p>"
)
_SCRIPT: Final = '<p onclick="go()">Look here: <script>alert(1)</script><!-- and there -->. '


def spoil(kind: Misbehaviour, text: str, prompt: Prompt, schema: Schema | None) -> str:
    """Return an answer as a model gives it that goes wrong in this way; what is no JSON object stays as it is.

    - `prose`: no JSON at all. `truncated_json`: it stops in the middle, of its own accord
    - `wrong_enum`: a dimension nobody knows. `misjudged`: an allowed one, but another than the question suggests.
      `repeated`: one that the schema leaves out because it is known or was asked; nothing if it leaves out none
    - `stacked`: three questions. `no_question`: none. `generic`: one that asks for everything
    - `bleed`: speech of an assistant, at the beginning or later. `echo`: an example of its prompt, word for word
    - `extra_keys`, `missing_keys`: not the properties that were asked for
    - `wrong_language`: German, whoever asks. `markup`: a script, a handler and a comment in the HTML
    """
    try:
        written: object = json.loads(text)
    except ValueError:
        return text
    if not isinstance(written, dict) or "html_response" not in written:
        return text
    fields = cast("dict[str, JsonValue]", written)
    if kind == "prose":
        return f"Certainly! {_plain(fields)}"
    if kind == "truncated_json":
        return text[: len(text) * 6 // 10]
    if kind in _OF_FIELDS:
        return json.dumps(_OF_FIELDS[kind](fields, schema))
    html = str(fields["html_response"])
    return json.dumps(fields | {"html_response": _spoilt(kind, html, prompt)})


def _spoilt(kind: Misbehaviour, html: str, prompt: Prompt) -> str:
    match kind:
        case "stacked":
            return html.removesuffix("</p>") + " And who decides that? What would you pay?</p>"
        case "no_question":
            return html.replace("?", ".")
        case "generic":
            return "<p>Thank you for writing. Could you tell me more about your business?</p>"
        case "bleed" if stable_hash(prompt.question) % 2:
            return "<p>Thank you for writing. As an AI language model I cannot see your site. What is it like?</p>"
        case "bleed":
            return f"<p>Sure, here is a question for you. {html.removeprefix('<p>')}"
        case "echo":
            return _echo(prompt) or html
        case "wrong_language":
            return _GERMAN
        case "markup":
            return _SCRIPT + html.removeprefix("<p>")
        case _:
            return html


def _misjudged(fields: Mapping[str, JsonValue], schema: Schema | None) -> Mapping[str, JsonValue]:
    others = [name for name in _listed(schema) if name != fields.get("dimension")]
    return {**fields, "dimension": others[stable_hash(str(fields)) % len(others)]} if others else fields


def _repeated(fields: Mapping[str, JsonValue], schema: Schema | None) -> Mapping[str, JsonValue]:
    closed = [name for name in KNOWN if name not in _listed(schema)]
    return {**fields, "dimension": closed[0]} if closed else fields


_OF_FIELDS: Final[dict[Misbehaviour, Callable[[Mapping[str, JsonValue], Schema | None], Mapping[str, JsonValue]]]] = {
    "wrong_enum": lambda fields, _: {**fields, "dimension": "favourite_colour"},
    "misjudged": _misjudged,
    "repeated": _repeated,
    "extra_keys": lambda fields, _: {
        "dimension": fields.get("dimension"),
        "reasoning": ["the buyer", {"mood": "curious"}],
        "html_response": fields["html_response"],
    },
    "missing_keys": lambda fields, _: {"html_response": fields["html_response"]},
}


def _listed(schema: Schema | None) -> list[str]:
    properties = (schema or {}).get("properties")
    shape = properties.get("dimension") if isinstance(properties, dict) else None
    listed = shape.get("enum") if isinstance(shape, dict) else None
    return [str(name) for name in listed] if isinstance(listed, list) else list(KNOWN)


def _echo(prompt: Prompt) -> str:
    found = _EXAMPLE.findall(prompt.system)
    return str(json.loads(found[stable_hash(prompt.question) % len(found)])["html_response"]) if found else ""


def _plain(fields: Mapping[str, JsonValue]) -> str:
    return re.sub(r"<[^>]+>", "", str(fields["html_response"]))
