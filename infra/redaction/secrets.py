"""Keys, tokens and passwords, wherever a person or a library put them."""

import re
from collections.abc import Iterator
from typing import Final

from infra.redaction.spans import Kind, Span

ENDINGS: Final = (
    r"(?:api_?key|authorization|cookie|credentials?|pass(?:words?|wd|phrase)|pepper|secrets?|signature|token)"
)
"""What the name of a secret ends with."""

QUOTED: Final = r"""(?:"(?:\\.|[^"\\])*(?:"|$)|'(?:\\.|[^'\\])*(?:'|$))"""

# fmt: off
_TRACES: Final = (
    "=", ":", "bearer", "basic", "fl_", "sk-", "sk_", "rk_", "xox", "hf_", "eyj", "ghp_", "gho_", "ghu_", "ghs_",
    "ghr_", "github_pat_", "glpat-", "akia", "asia", "aiza", "npm_", "sg.", "-----", "passw", "passp", "passc",
    "kennwort", "passe", "contraseña", "senha",
)
# fmt: on

# In each pattern the group `secret` is what goes; without the group all of it.
PATTERNS: Final[tuple[re.Pattern[str], ...]] = (
    # A private key, also one that is cut off.
    re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)", re.DOTALL
    ),
    # Our own keys: the public part stays, so that a key can be found and revoked.
    re.compile(r"\bfl_[A-Za-z0-9]+_(?P<secret>[A-Za-z0-9_\-]{6,})"),
    # Keys of model servers, Slack, Hugging Face, and signed tokens.
    re.compile(r"\b(?:sk-[\w\-]{8,}|xox[a-z]-[\w\-]{8,}|hf_\w{8,}|eyJ[\w\-]+\.[\w\-]+\.[\w\-]*)"),
    # Keys of GitHub, GitLab, AWS, Google, Stripe, npm, SendGrid.
    re.compile(
        r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w\-]{16,}|A(?:KIA|SIA)[A-Z0-9]{16}|AIza[\w\-]{30,}|"
        r"[sr]k_(?:live|test)_\w{10,}|npm_\w{30,}|SG\.[\w\-]{16,}\.[\w\-]{16,})"
    ),
    # The password of a URL.
    re.compile(r"\b[a-z][a-z0-9+.\-]{0,20}://[^\s:/@]*:(?P<secret>[^\s/]+)@", re.IGNORECASE),
)

NAMED: Final = re.compile(
    rf"""(?:\b|_){ENDINGS.replace("_?", "[_-]?")}["']?\s*[:=]\s*(?-i:b(?=["']))?"""
    rf"""(?!(?:Bearer|Basic)\s|\[redacted|\[secret)(?P<secret>{QUOTED}|[^\s,;&"')\]}}]+)""",
    re.IGNORECASE,
)
"""name=value, name: value and "name": "value"."""

SCHEME: Final = re.compile(r"\b(?:Bearer|Basic)\s+(?P<secret>[^\s\"',;]+)", re.IGNORECASE)
"""Scheme and credentials of an authorization header, in whatever sentence: for logs, where nothing may pass."""

_LIKELY_SCHEME: Final = re.compile(
    r"\b(?:Bearer|Basic)\s+(?P<secret>(?=[^\s\"',;]*\d|[^\s\"',;]{16})[^\s\"',;]+)", re.IGNORECASE
)
"""The same in what people write: `the basic plan` has none."""

TOLD: Final = re.compile(
    r"\b(?:pass(?:word|wort|phrase|code)|kennwort|mot de passe|contraseña|senha)\s*"
    r"(?::|=|\b(?:is|ist|lautet|est|es|è|é)\b)\s*[\"'“„«]?(?!\[secret|\[redacted)"
    r"(?P<secret>(?=\S*\d|\S*[^\w\s]\w)[^\s\"'”“»,;]{4,}[^\s\"'”“»,;.?])",
    re.IGNORECASE,
)
"""A password in somebody's sentence: it has a digit or a sign in it, or `my password is wrong` would be one."""


def suspect(text: str) -> bool:
    """Tell whether a text has what every secret needs; most have none of it."""
    low = text.lower()
    return any(trace in low for trace in _TRACES)


def find(text: str) -> Iterator[Span]:
    """Yield the secrets of a text."""
    if not suspect(text):
        return
    for pattern in (*PATTERNS, _LIKELY_SCHEME, NAMED, TOLD):
        group = "secret" if "secret" in pattern.groupindex else 0
        for match in pattern.finditer(text):
            yield Span(*match.span(group), Kind.SECRET)
