"""Payment cards, bank accounts and national identity numbers, each by its checksum where it has one."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Final

from infra.redaction.rules import Cues, rules
from infra.redaction.spans import Kind, Span

_CARD: Final = re.compile(r"(?<![\w.-])\d(?:[ \u00a0-]?\d){12,18}(?![\w-]|[.,]\d)")
_ISSUERS: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|(?:6011|64[4-9]\d|65\d\d)\d{12}|"
    r"3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}|(?:50|5[6-8]|63|67)\d{10,17}"
)
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ \u00a0-]?[A-Z0-9]){11,30}", re.IGNORECASE)
_MAY_BE_IBAN: Final = re.compile(r"[A-Za-z]{2}\d\d[ \u00a0-]?[A-Za-z0-9]{3}")
_SHORTEST_IBAN: Final = 15
_THIRTEEN_DIGITS: Final = re.compile(r"\d(?:[ \u00a0-]?\d){12}")
_CUE_WINDOW: Final = 40


@dataclass(frozen=True, slots=True)
class _Identity:
    """One country's number: its form, the module of `stdnum` that checks it, whether it needs a cue before it."""

    name: str
    form: re.Pattern[str]
    checked: bool = True
    cue: bool = False

    def valid(self, written: str) -> bool:
        if not self.checked:
            return True
        country, _, number = self.name.partition("_")
        check: Callable[[str], bool] = import_module(f"stdnum.{country}.{number}").is_valid
        return check(written)


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.+-])(?:{pattern})(?![\w-]|[.,]\d)")


_ELEVEN: Final = r"\d{2}[ ./]?\d{3}[ ./]?\d{3}[ ./]?\d{3}"

_IDENTITIES: Final = (
    _Identity("us_ssn", _form(r"\d{3}-\d{2}-\d{4}")),
    _Identity("us_ssn", _form(r"\d{3} ?\d{2} ?\d{4}"), cue=True),
    _Identity("fr_nir", _form(r"[12] ?\d{2} ?\d{2} ?[\dAB]{2} ?\d{3} ?\d{3} ?\d{2}")),
    _Identity("es_dni", _form(r"\d{2}\.?\d{3}\.?\d{3}-?[A-HJ-NP-TV-Z]")),
    _Identity("es_nie", _form(r"[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z]")),
    _Identity("it_codicefiscale", _form(r"[A-Za-z]{6}\d{2}[A-EHLMPR-Ta-ehlmpr-t]\d{2}[A-Za-z]\d{3}[A-Za-z]")),
    _Identity("ch_ssn", _form(r"756\.?\d{4}\.?\d{4}\.?\d{2}")),
    _Identity("be_nn", _form(r"\d{2}\.\d{2}\.\d{2}[- ]\d{3}\.\d{2}")),
    _Identity("br_cpf", _form(r"\d{3}\.\d{3}\.\d{3}-\d{2}")),
    _Identity("se_personnummer", _form(r"(?:19|20)?\d{6}[-+]\d{4}")),
    _Identity("fi_hetu", _form(r"\d{6}[-+A]\d{3}[0-9A-Y]")),
    _Identity("gb_nino", _form(r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]"), checked=False),
    _Identity("de_idnr", _form(_ELEVEN), cue=True),
    _Identity("nl_bsn", _form(r"\d{4}[ .]?\d{2}[ .]?\d{3}|\d{3}[ .]?\d{3}[ .]?\d{3}"), cue=True),
    _Identity("pl_pesel", _form(r"\d{11}"), cue=True),
    _Identity("pt_nif", _form(r"\d{3} ?\d{3} ?\d{3}"), cue=True),
    _Identity("dk_cpr", _form(r"\d{6}[- ]?\d{4}"), cue=True),
    _Identity("gb_nhs", _form(r"\d{3}[ -]?\d{3}[ -]?\d{4}"), cue=True),
    _Identity("at_vnr", _form(r"\d{4} ?\d{6}"), cue=True),
    _Identity("br_cpf", _form(r"\d{11}"), cue=True),
)
_MAY_BE_IDENTITY: Final = re.compile(
    rf"(?<![\w.+-])(?=[0-9A-Za-z][0-9A-Za-z. -]*\d)(?:{'|'.join(identity.form.pattern for identity in _IDENTITIES)})"
)


@cache
def _cue(name: str) -> Cues:
    return Cues(rules().id_cues[name], within=_CUE_WINDOW)


def cards(text: str) -> Iterator[Span]:
    """Yield numbers of payment cards: an issuer's prefix and length, and the check digit."""
    if _THIRTEEN_DIGITS.search(text) is None:
        return
    from stdnum import luhn

    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _ISSUERS.fullmatch(digits) is not None and luhn.is_valid(digits):
            yield Span(*match.span(), Kind.CARD)


def ibans(text: str) -> Iterator[Span]:
    """Yield bank accounts; words that follow one are no part of it."""
    if _MAY_BE_IBAN.search(text) is None:
        return
    from stdnum import iban

    for match in _IBAN.finditer(text):
        places = [at for at in range(match.start(), match.end()) if text[at].isalnum()]
        for length in range(len(places), _SHORTEST_IBAN - 1, -1):
            end = places[length - 1] + 1
            whole = end == len(text) or not text[end].isalnum()
            if whole and iban.is_valid("".join(text[at] for at in places[:length])):
                yield Span(match.start(), end, Kind.IBAN)
                break


def identities(text: str) -> Iterator[Span]:
    """Yield national identity numbers; those that look like any number only after a cue."""
    if _MAY_BE_IDENTITY.search(text) is None:
        return
    for identity in _IDENTITIES:
        for match in identity.form.finditer(text):
            expected = not identity.cue or _cue(identity.name).before(text, match.start())
            if expected and identity.valid(match[0]):
                yield Span(*match.span(), Kind.NATIONAL_ID)
