"""E-mail and IP addresses."""

import re
from collections.abc import Iterator
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from infra.redaction.rules import Cues, rules
from infra.redaction.spans import Kind, Span

_EMAIL: Final = re.compile(
    r"(?<![\w.+%'-])[\w.+%'-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])"
)
_SPELLED: Final = re.compile(
    r"(?<![\w.+%'-])[\w.+%'-]{1,64}\s?[\[({]\s?(?:at|ät|arroba|chiocciola)\s?[\])}]\s?"
    r"[\w-]{1,63}(?:(?:\s?[\[({]\s?(?:dot|punkt|point|punto)\s?[\])}]\s?|\.)[\w-]{2,63}){1,4}",
    re.IGNORECASE,
)
_MAY_BE_SPELLED: Final = re.compile(r"[\[({]\s?(?:at|ät|arroba|chiocciola)\s?[\])}]", re.IGNORECASE)

_MAY_BE_IPV4: Final = re.compile(r"\d\.\d{1,3}\.\d")
_IPV4: Final = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6: Final = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]{2,39}(?:\.\d{1,3}){0,3}(?![\w:]|\.\d)")
_ANYWHERE: Final = tuple(
    IPv6Network(net) for net in ("2000::/3", "fc00::/7", "fe80::/10", "::ffff:0:0/96", "64:ff9b::/96")
)
"""Where addresses in use lie: `10::30` is one by the letter only."""
_INSIDE: Final = tuple(
    IPv4Network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10")
)
_CUE_WINDOW: Final = 20


@cache
def _version() -> Cues:
    return Cues(rules().version_words, within=_CUE_WINDOW)


def emails(text: str) -> Iterator[Span]:
    """Yield e-mail addresses, also those spelled with `[at]`."""
    if "@" in text:
        for match in _EMAIL.finditer(text):
            yield Span(*match.span(), Kind.EMAIL)
    if _MAY_BE_SPELLED.search(text) is not None:
        for match in _SPELLED.finditer(text):
            yield Span(*match.span(), Kind.EMAIL)


def ips(text: str) -> Iterator[Span]:
    """Yield IP addresses except those of the machine itself; times and versions are none."""
    if _MAY_BE_IPV4.search(text) is not None:
        for match in _IPV4.finditer(text):
            if (kind := _kind4(match[0])) is not None and not _version().before(text, match.start()):
                yield Span(*match.span(), kind)
    if text.count(":") > 1:
        for match in _IPV6.finditer(text):
            trimmed = match[0].removesuffix(":") if not match[0].endswith("::") else match[0]
            if (kind := _kind6(trimmed)) is not None:
                yield Span(match.start(), match.start() + len(trimmed), kind)


def _kind4(written: str) -> Kind | None:
    try:
        address = IPv4Address(written)
    except ValueError:
        return None
    if address.is_loopback or address.is_unspecified or address.packed[0] == 0 or address.packed == b"\xff" * 4:
        return None
    return Kind.PRIVATE_IP if any(address in net for net in _INSIDE) else Kind.IP


def _kind6(written: str) -> Kind | None:
    try:
        address = IPv6Address(written)
    except ValueError:
        return None
    if not any(address in net for net in _ANYWHERE):
        return None
    return Kind.PRIVATE_IP if address.packed[0] in (0xFC, 0xFD, 0xFE) else Kind.IP
