"""A filter as SQL: a condition over `dead_letters l` and `turns t`. Every value is a bound parameter."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

from schemas.letter_filter import Comparison, Field, Joined, LetterFilter, Not, moment

_COLUMNS: Final[dict[Field, str]] = {
    Field.AGENT: "coalesce(l.agent, t.agent)",
    Field.REASON: "l.reason",
    Field.STATE: "l.state",
    Field.STAGE: "l.stage",
    Field.CONVERSATION: "l.conversation_id",
    Field.CHANNEL: "t.channel",
    Field.TURN: "l.turn_id",
    Field.CREATED: "l.created_at",
    Field.TIMES: "l.times",
    Field.REPLAYS: "l.replays",
}
_NUMBERS: Final = frozenset({Field.TIMES, Field.REPLAYS})


@dataclass(frozen=True, slots=True)
class Condition:
    """SQL that is true for the dead letters meant, and its parameters."""

    sql: str
    values: dict[str, object]


def condition_of(chosen: LetterFilter | None) -> Condition:
    """Return the condition of a filter; None chooses every dead letter."""
    values: dict[str, object] = {}
    return Condition("true" if chosen is None else _sql(chosen, values), values)


def _sql(chosen: LetterFilter, values: dict[str, object]) -> str:
    match chosen:
        case Comparison():
            return _compared(chosen, values)
        case Not():
            # A letter without the field is not chosen by the inner filter, hence chosen here: unknown is not true.
            return f"({_sql(chosen.inner, values)}) IS NOT TRUE"
        case Joined():
            return "(" + f" {chosen.word} ".join(_sql(part, values) for part in chosen.parts) + ")"
        case _:
            assert_never(chosen)


def _compared(one: Comparison, values: dict[str, object]) -> str:
    if one.operator == "!=":
        return f"({_compared(Comparison(one.field, '=', one.values), values)}) IS NOT TRUE"
    name = f"w{len(values)}"
    values[name], placeholder = _bound(one, name)
    operator = one.operator if one.operator != "in" else "="
    if one.field is Field.MODEL:
        return f"EXISTS (SELECT 1 FROM attempts a WHERE a.turn_id = l.turn_id AND a.model {operator} {placeholder})"  # noqa: S608
    return f"{_COLUMNS[one.field]} {operator} {placeholder}"


def _bound(one: Comparison, name: str) -> tuple[object, str]:
    if one.field is Field.CREATED:
        found = moment(one.values[0])
        if isinstance(found, datetime):
            return found, f"CAST(:{name} AS timestamptz)"
        return found, f"clock_timestamp() - make_interval(secs => :{name})"
    if one.field in _NUMBERS:
        return [int(value) for value in one.values], _any(one, name, "int")
    return list(one.values), _any(one, name, "uuid" if one.field is Field.TURN else "text")


def _any(one: Comparison, name: str, kind: str) -> str:
    listed = f"CAST(:{name} AS {kind}[])"
    return f"ANY({listed})" if one.operator == "in" else f"({listed})[1]"
