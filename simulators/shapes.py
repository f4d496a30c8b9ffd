"""A JSON value for a JSON schema, filled from a reply."""

from typing import TypeAlias

from pydantic import JsonValue

from simulators.dialogues import Reply

Schema: TypeAlias = dict[str, JsonValue]

DEFAULT_SCHEMA: Schema = {
    "type": "object",
    "properties": {
        "dimension": {
            "type": "string",
            "enum": ["pain_points", "timeline", "budget", "decision_process", "current_solution", "team"],
        },
        "html_response": {"type": "string"},
    },
    "required": ["dimension", "html_response"],
}
"""What a discovery answer looks like when JSON is asked for without a schema."""

_DEEPEST = 12


def fill(schema: Schema, reply: Reply) -> JsonValue:
    """A value of `schema`: properties in its order, enums and texts from `reply` where names allow."""
    return _Filler(schema, reply).value("", schema, 0)


class _Filler:
    def __init__(self, root: Schema, reply: Reply) -> None:
        self._root = root
        self._reply = reply

    def value(self, name: str, schema: JsonValue, depth: int) -> JsonValue:
        if not isinstance(schema, dict) or depth > _DEEPEST:
            return None
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if isinstance(listed := schema.get("enum"), list) and listed:
            return self._of(listed)
        return self._typed(name, schema, depth)

    def _typed(self, name: str, schema: Schema, depth: int) -> JsonValue:
        match _kind(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(name, schema, depth)
            case "integer":
                return int(_within(schema, 1))
            case "number":
                return _within(schema, 0.9)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._text(name, schema)

    def _resolved(self, schema: Schema) -> Schema:
        for _ in range(_DEEPEST):
            if isinstance(ref := schema.get("$ref"), str):
                schema = self._at(ref)
            elif (options := _options(schema)) is not None:
                schema = options
            else:
                break
        return schema

    def _at(self, ref: str) -> Schema:
        place: JsonValue = self._root
        for step in ref.removeprefix("#/").split("/"):
            place = place.get(step) if isinstance(place, dict) else None
        return place if isinstance(place, dict) else {}

    def _object(self, schema: Schema, depth: int) -> JsonValue:
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            return {}
        if properties.keys() == {"title", "nodes", "edges"}:
            return self._graph()
        return {name: self.value(name, inner, depth + 1) for name, inner in properties.items()}

    def _graph(self) -> JsonValue:
        """A chart of the reply: a box for each of its first sentences, an arrow from each to the next."""
        said = [sentence.strip() for sentence in self._reply.plain.split(". ") if sentence.strip()][:4]
        nodes: list[JsonValue] = [{"id": f"s{n}", "label": sentence} for n, sentence in enumerate(said)]
        edges: list[JsonValue] = [{"from": f"s{n}", "to": f"s{n + 1}", "label": ""} for n in range(len(said) - 1)]
        return {"title": self._reply.intent.replace("_", " "), "nodes": nodes, "edges": edges}

    def _array(self, name: str, schema: Schema, depth: int) -> JsonValue:
        least = schema.get("minItems")
        count = least if isinstance(least, int) else 1
        if schema.get("maxItems") == 0:
            return []
        return [self.value(name, schema.get("items", {"type": "string"}), depth + 1) for _ in range(max(1, count))]

    def _of(self, listed: list[JsonValue]) -> JsonValue:
        for hint in (self._reply.dimension, self._reply.agent, self._reply.intent):
            if hint in listed:
                return hint
        words = {self._reply.agent.split("_")[0], self._reply.intent.split("_")[0]}
        fitting = (item for item in listed if isinstance(item, str) and any(word in item for word in words))
        return next(fitting, listed[0])

    def _text(self, name: str, schema: Schema) -> str:
        text = self._worded(name.lower())
        longest = schema.get("maxLength")
        return text[:longest] if isinstance(longest, int) else text

    def _worded(self, name: str) -> str:
        reply = self._reply
        match name:
            case "dimension":
                return reply.dimension
            case "agent" | "route" | "next_agent" | "target":
                return reply.agent
            case "intent" | "topic" | "category" | "label":
                return reply.intent
            case "reason" | "rationale" | "reasoning" | "explanation":
                return f"The visitor's words point to {reply.intent.replace('_', ' ')}."
            case "question" | "query" | "search_query":
                return reply.question
            case "language":
                return "en"
            case _ if "html" in name:
                return reply.html
            case _:
                return reply.plain


def _kind(schema: Schema) -> JsonValue:
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((one for one in kind if one != "null"), "null")
    return kind if kind is not None else ("object" if "properties" in schema else "string")


def _options(schema: Schema) -> Schema | None:
    for word in ("anyOf", "oneOf", "allOf"):
        choices = schema.get(word)
        if isinstance(choices, list):
            known = [choice for choice in choices if isinstance(choice, dict) and choice.get("type") != "null"]
            return known[0] if known else {"type": "null"}
    return None


def _within(schema: Schema, wanted: float) -> float:
    low, high = schema.get("minimum"), schema.get("maximum")
    if isinstance(low, int | float) and wanted < low:
        wanted = low
    if isinstance(high, int | float) and wanted > high:
        wanted = high
    return wanted
