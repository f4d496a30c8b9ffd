"""The language of each message."""

import asyncio

import pytest

from tests.support.turns import turn
from workers.orchestrator.language import Languages


@pytest.fixture(scope="module")
def languages() -> Languages:
    """The policy's languages, loaded once."""

    async def load() -> Languages:
        loaded = Languages(("en", "de", "fr", "es", "it", "nl", "pt"), clear=0.75)
        await loaded.begin()
        return loaded

    return asyncio.run(load())


@pytest.mark.parametrize(
    ("text", "asked", "language"),
    [
        ("How much is it for forty users?", (), "en"),
        ("Der Export funktioniert seit heute nicht mehr", (), "de"),
        ("Combien cela coûte-t-il pour quarante personnes ?", (), "fr"),
        ("¿Cuánto cuesta para cuarenta personas?", (), "es"),
        ("Quanto costa per quaranta persone al mese?", (), "it"),
        ("Hola", (), "es"),
        ("ciao", (), "it"),
        ("ok", (), "en"),
        ("12345", (), "en"),
        ("", (), "en"),
        ("ok", ("Guten Tag, wir suchen eine Lösung für unser Lager",), "de"),
        ("non merci", ("Bonjour, nous cherchons une solution pour notre entrepôt",), "fr"),
        ("NetSuite", ("Buenos días, buscamos una solución para el almacén",), "es"),
        ("Sorry, can we continue in English please?", ("Guten Tag, wir suchen eine Lösung",), "en"),
    ],
)
async def test_a_message_has_its_language(
    languages: Languages, text: str, asked: tuple[str, ...], language: str
) -> None:
    """A clear message has its own; one of two or three words keeps that of the conversation, if there is one."""
    assert await languages.of(turn(text, *asked)) == language


async def test_history_that_was_brought_along_counts(languages: Languages) -> None:
    """Where a channel brings the history, its visitor's words show the language of the conversation."""
    brought = (("assistant", "Hello"), ("user", "Wir verlieren jede Woche Stunden durch falsche Bestände"))
    assert await languages.of(turn("ja", brought=brought)) == "de"


async def test_nobody_waits_for_the_model_longer_than_wanted() -> None:
    """While it loads a message counts as of the first language."""
    loading = Languages(("de", "en"), clear=0.75)
    assert await loading.of(turn("How much is it for forty users?"), within=0) == "de"
    await loading.begin()
    assert await loading.of(turn("How much is it for forty users?"), within=0) == "en"


async def test_without_its_model_every_message_is_of_the_first_language() -> None:
    """A language that the model does not know stops nothing."""
    assert await Languages(("en", "xx"), clear=0.75).of(turn("Der Export funktioniert nicht")) == "en"
