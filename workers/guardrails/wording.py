"""Versioned patterns by language: how what must not be said, or should not be heard, is worded."""

import re
from collections.abc import Iterable
from importlib import resources
from typing import Final

import yaml
from pydantic import BaseModel, ConfigDict, Field

_MONTHS: Final = (
    "jan(?:uary|uar)?|feb(?:ruary|ruar)?|mar(?:ch|s|zo)?|märz|apr(?:il|ile)?|may|mai|mayo|maggio|june?|juni|juin|junio|"
    "july?|juli|juillet|julio|aug(?:ust)?|août|agosto|sep(?:t(?:ember|embre)?)?|septiembre|settembre|o[ck]t(?:ober)?|"
    "octobre|octubre|ottobre|nov(?:ember|embre|iembre)?|de[cz](?:ember)?|décembre|diciembre|dicembre|enero|febrero|abril|"
    "janvier|février|avril|gennaio|febbraio|giugno|luglio"
)
_DAYS: Final = (
    "(?:mon|tues|wednes|thurs|fri|satur|sun)day|montag|dienstag|mittwoch|donnerstag|freitag|samstag|sonntag|lundi|mardi|"
    "mercredi|jeudi|vendredi|samedi|dimanche|lunes|martes|miércoles|jueves|viernes|sábado|domingo|lunedì|martedì|"
    "mercoledì|giovedì|venerdì|sabato|domenica|tomorrow|morgen|demain|mañana|domani|end of (?:the )?(?:week|month)|"
    "ende (?:der|des) (?:woche|monats)|fin (?:de semaine|du mois)|fin de (?:semana|mes)|fine (?:settimana|mese)|"
    "next (?:week|month)|nächste[rn]? (?:woche|monat)|la semaine prochaine|la semana que viene|la prossima settimana"
)
_UNITS: Final = (
    "hours?|(?:business |working )?days?|weeks?|months?|stunden?|(?:werk|arbeits)?tage?n?|wochen?|monate?n?|heures?|"
    "jours?|semaines?|mois|horas?|días?|semanas?|mes(?:es)?|ore|giorn[oi]|settiman[ae]|mes[ei]"
)
_SHORT_NUMBERS: Final = (
    "an?|one|two|three|four|five|ein(?:e[mnrs]?)?|zwei|drei|vier|fünf|une?|deux|trois|quatre|cinq|dos|tres|cuatro|due|"
    "tre|quattro"
)
PARTS: Final = {
    "{money}": (
        r"(?:(?:[$€£¥]|\b(?:usd|eur|gbp|chf)\b) ?\d[\d.,' \u00a0]*|"
        r"\b\d[\d.,' \u00a0]*(?:[$€£]|\b(?:euros?|eur|usd|dollars?|dollar|pounds?|chf|franken|dólares|dollari)\b))"
    ),
    "{percent}": r"\b\d{1,3}(?:[.,]\d+)? ?(?:%|percent\b|prozent\b|pour cent\b|por ciento\b|per cento\b)",
    "{date}": (
        rf"(?:\b(?:{_DAYS}|(?:{_MONTHS})\.? \d{{1,2}}|\d{{1,2}}(?:st|nd|rd|th|\.|º)?(?: de| of)? (?:{_MONTHS}))\b|"
        r"\b\d{4}-\d\d-\d\d\b|\b\d{1,2}[./]\d{1,2}[./](?:\d{4}|\d\d)?)"
    ),
    "{span}": rf"\b(?:\d{{1,3}}|{_SHORT_NUMBERS})(?:[-–]\d{{1,3}})? (?:{_UNITS})\b",
}


class Wording(BaseModel):
    """A file of patterns: for each language, for each kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(ge=1)
    languages: dict[str, dict[str, tuple[str, ...]]]


def wording(name: str) -> Wording:
    """Return a file of this package.

    Raises:
        ValidationError: it does not fit.
    """
    raw = resources.files("workers.guardrails").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return Wording.model_validate(yaml.safe_load(raw))


def compiled(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """Return one pattern for any of several, with the parts in braces filled in; None for none."""
    whole = "|".join(f"(?:{pattern})" for pattern in patterns)
    for name, part in PARTS.items():
        whole = whole.replace(name, part)
    return re.compile(whole, re.IGNORECASE) if whole else None
