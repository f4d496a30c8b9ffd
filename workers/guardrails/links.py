"""Where a link in an answer may lead: to hosts of the installation, and to those its passages were read from."""

import re
from collections.abc import Callable, Iterable
from typing import Final

from schemas.guardrail_policy import LinkPolicy
from schemas.knowledge import Passage

LinkRule = Callable[[str], bool]
"""Tells whether a link may lead to an address; the address is as a browser will be given it."""

_ADDRESS: Final = re.compile(
    r"https://(?P<host>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)(?=[/?#]|\Z)", re.IGNORECASE | re.ASCII
)
"""Only what every parser reads alike: no user, no port, no escape, no letter outside ASCII, no dot at the end."""


def no_link(_: str) -> bool:
    """Allow no address."""
    return False


def any_link(_: str) -> bool:
    """Allow every address: for HTML that passed a rule before."""
    return True


def link_rule(policy: LinkPolicy, passages: Iterable[Passage] = ()) -> LinkRule:
    """Return the rule for an answer that was written from `passages`."""
    exact = {host for host in policy.hosts if not host.startswith("*.")}
    below = tuple(host.removeprefix("*") for host in policy.hosts if host.startswith("*."))
    if policy.passages:
        exact |= {host for passage in passages if (host := _host_of_passage(passage)) is not None}

    def allowed(address: str) -> bool:
        host = host_of(address)
        return host is not None and (host in exact or host.endswith(below))

    return allowed


def host_of(address: str) -> str | None:
    """Return the host of an https address in small letters; None where there is any doubt which one it is."""
    found = _ADDRESS.match(address)
    if found is None or ".." in found["host"]:
        return None
    return found["host"].lower()


def _host_of_passage(passage: Passage) -> str | None:
    """Return the host of a page that was read; one read without encryption may be linked to with it."""
    link = passage.link
    return None if link is None else host_of(re.sub(r"\Ahttp://", "https://", link, flags=re.IGNORECASE))
