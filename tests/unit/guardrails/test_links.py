"""A link leads to an allowed host by the letter, or it is text."""

import random
import re

import nh3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from infra.policy import load_policy
from schemas.guardrail_policy import LinkPolicy
from schemas.knowledge import Passage
from workers.answers.sanitise import ALLOWED, HtmlStream
from workers.guardrails.links import LinkRule, any_link, host_of, link_rule, no_link

QUICK = settings(max_examples=200, deadline=None, database=None)
POLICY = LinkPolicy(hosts=("docs.example.com", "*.help.example.com", "xn--mnchen-3ya.example"))
PASSAGES = (
    Passage(passage_id="1", source="https://Kb.Example.org/page", text="see https://evil.example/x"),
    Passage(passage_id="2", source="http://old.example.org/page", text=""),
    Passage(passage_id="3", source="handbook/setup.md", text=""),
    Passage(passage_id="4", source="https://user@odd.example.org:8443/", text=""),
)
RULE = link_rule(POLICY, PASSAGES)

ALLOWED_ADDRESSES = [
    "https://docs.example.com",
    "https://docs.example.com/a?b=c#d",
    "https://docs.example.com?q=https://evil.example",
    "https://docs.example.com/@evil.example",
    "HTTPS://DOCS.example.COM/x",
    "https://eu.help.example.com/",
    "https://a.b.help.example.com/",
    "https://xn--mnchen-3ya.example/",
    "https://kb.example.org/other",
    "https://old.example.org/page",
]
REFUSED_ADDRESSES = [
    # other hosts, and hosts that only contain an allowed one
    "https://evil.example/",
    "https://example.com/",
    "https://help.example.com/",
    "https://xdocs.example.com/",
    "https://docs.example.com.evil.example/",
    "https://evilhelp.example.com/",
    "https://evil.example/docs.example.com",
    "https://evil.example?https://docs.example.com",
    "https://evil.example#docs.example.com",
    "https://odd.example.org/",
    # other schemes and relative addresses
    "http://docs.example.com/",
    "mailto:a@docs.example.com",
    "ftp://docs.example.com/",
    "javascript://docs.example.com/%0aalert(1)",
    "data:text/html,docs.example.com",
    "//docs.example.com/",
    "/docs.example.com",
    "https:docs.example.com",
    "https:/docs.example.com",
    "https:///docs.example.com",
    "https:\\\\docs.example.com",
    # users, ports, dots, escapes
    "https://docs.example.com@evil.example/",
    "https://user@docs.example.com/",
    "https://user:pw@docs.example.com/",
    "https://docs.example.com:443/",
    "https://docs.example.com:8443/",
    "https://docs.example.com:/",
    "https://docs.example.com./",
    "https://.docs.example.com/",
    "https://docs..example.com/",
    "https://docs%2eexample.com/",
    "https://docs.example.com%2eevil.example/",
    "https://docs.example.com%00.evil.example/",
    "https://docs.example.com\\.evil.example/",
    "https://docs.example.com\\@evil.example/",
    "https://docs.example.com;evil.example/",
    "https://docs.example.com,evil.example/",
    "https://docs.example.com&evil.example/",
    "https://[::1]/",
    "https://127.0.0.1/",
    "https://0x7f.1/",
    "https://",
    # letters that look like others, and punycode of something else
    "https://d\u043ecs.example.com/",
    "https://docs.ex\u0430mple.com/",
    "https://docs\u3002example.com/",
    "https://docs\uff0eexample.com/",
    "https://\uff44ocs.example.com/",
    "https://docs.example\u2024com/",
    "https://docs\u00ad.example.com/",
    "https://docs\u200b.example.com/",
    "https://m\u00fcnchen.example/",
    "https://xn--docs-example-9ya.com/",
    "https://docs.example.com\u2044evil.example/",
    "https://docs.example.com\uff0fevil.example/",
    "https://docs.example.\u212aom/",
]


def shown(document: str, links: LinkRule = RULE, seed: int = 1) -> str:
    source, stream, at, out = random.Random(seed), HtmlStream(links=links), 0, ""
    while at < len(document):
        end = at + source.choice((1, 3, 9))
        out += stream.feed(document[at:end])
        whole = out + stream.closers()
        assert nh3.clean(whole, **ALLOWED) == whole
        at = end
    return out + stream.finish()


@pytest.mark.parametrize("address", ALLOWED_ADDRESSES)
def test_an_allowed_host_is_linked_to(address: str) -> None:
    """Hosts of the policy, of hosts below it where it says so, and of this turn's passages keep their links."""
    assert RULE(address)
    assert shown(f'<p><a href="{address}">the page</a></p>').count("<a ") == 1


@pytest.mark.parametrize("address", REFUSED_ADDRESSES)
def test_any_other_address_is_text(address: str) -> None:
    """The link goes, its text stays, however the address is dressed up."""
    for quoted in (address, address.replace(".", "&#46;"), address.replace("/", "&sol;"), f" \t{address}\n"):
        assert shown(f'<p><a href="{quoted}">the page</a>.</p>') == "<p>the page.</p>"


def test_a_host_in_capitals_is_the_same_host() -> None:
    """Case is no difference between hosts."""
    assert host_of("https://DOCS.Example.com/X") == "docs.example.com"


def test_without_a_rule_there_is_no_link() -> None:
    """A sanitiser that nobody gave a rule lets none through, and neither does the policy that is shipped."""
    assert shown('<a href="https://docs.example.com">x</a>', links=no_link) == "x"
    shipped = load_policy().guardrails.links
    assert not link_rule(shipped)("https://docs.example.com/")
    assert link_rule(shipped, PASSAGES)("https://kb.example.org/")
    assert any_link("https://evil.example")


def test_passages_can_be_left_out() -> None:
    """An installation may allow its own hosts only, and what a passage's text links to is never allowed."""
    assert not link_rule(POLICY.model_copy(update={"passages": False}), PASSAGES)("https://kb.example.org/")
    assert not RULE("https://evil.example/x")


@pytest.mark.parametrize(
    "host",
    [
        "https://a.com",
        "a.com/",
        "a.com:443",
        "A.com",
        "com",
        "*.com",
        "*",
        "a..com",
        "-a.com",
        "m\u00fcnchen.example",
        "a.com.",
        "10.0.0.1",
    ],
)
def test_a_host_that_would_never_match_is_refused(host: str) -> None:
    """The policy takes a host's name as it is compared, and no wildcard over a whole country."""
    with pytest.raises(ValidationError):
        LinkPolicy(hosts=(host,))


PARTS = [
    "https://", "http://", "//", "docs.example.com", "evil.example", "@", ":", "443", "/", "\\", ".", "%2e", "?", "#",
    "\t", "\n", " ", "\0", "\u3002", "\u00ad", "&#64;", "&colon;", "&period;", "xn--", "user", "'", ">",
]  # fmt: skip


@QUICK
@given(address=st.lists(st.sampled_from(PARTS), max_size=9).map("".join), seed=st.integers(0, 9_999))
def test_whatever_is_linked_to_has_an_allowed_host(address: str, seed: int) -> None:
    """Every link that is shown begins with an allowed host by the letter, and every prefix is whole."""
    html = shown(f"<a href=\"https://docs.example.com/\">a</a><a href='{address}'>b</a>", seed=seed)
    hosts = re.findall(r'href="https://([a-zA-Z.]+)(?=[/?#"])', html)
    assert len(hosts) == html.count("<a ")
    assert {host.lower() for host in hosts} == {"docs.example.com"}
