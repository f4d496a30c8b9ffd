"""The language of each message: its own where it is clear, else that of the conversation."""

import asyncio
import re
from collections.abc import Sequence
from copy import copy
from functools import cache
from pathlib import Path
from typing import Final, cast

from py3langid.langid import MODEL_FILE, LanguageIdentifier
from structlog import get_logger

from infra.postgres.inbox import Prepared

log = get_logger(__name__)

MAX_CHARS: Final = 1_000
_EARLIER: Final = 4
"""Messages of the conversation that are looked at beside the new one."""

_PATIENCE: Final = 30.0
"""Seconds that somebody waits for loading who has nothing else to do."""

_FEW: Final = 3
"""Words up to which a message that is not clear by itself says nothing, whatever else it resembles."""

_GREETINGS: Final = {
    "hello": "en", "hey": "en", "hi": "en", "thanks": "en", "yes": "en",
    "hallo": "de", "servus": "de", "moin": "de", "danke": "de", "ja": "de", "nein": "de", "bitte": "de",
    "bonjour": "fr", "bonsoir": "fr", "salut": "fr", "merci": "fr", "oui": "fr", "non": "fr",
    "hola": "es", "buenas": "es", "gracias": "es", "vale": "es",
    "ciao": "it", "salve": "it", "buongiorno": "it", "buonasera": "it", "grazie": "it",
    "goedemorgen": "nl", "dank": "nl", "olá": "pt", "obrigado": "pt", "obrigada": "pt",
}  # fmt: skip
"""Of messages of one word with which a conversation may begin: too short for statistics."""


@cache
def _model() -> LanguageIdentifier:
    """Read the model of all languages, once in a process; a copy of it is restricted to some."""
    return LanguageIdentifier.from_model_file(Path(MODEL_FILE), norm_probs=True)


class Languages:
    """Tells languages apart, among those of the policy. Loaded once, in a thread, when first needed."""

    def __init__(self, languages: Sequence[str], *, clear: float) -> None:
        """Know `languages`, the first of which is assumed; believe a message from the probability `clear` on."""
        self._languages = tuple(languages)
        self._clear = clear
        self._loading: asyncio.Task[LanguageIdentifier | None] | None = None

    def begin(self) -> asyncio.Task[LanguageIdentifier | None]:
        """Begin to load, so that the first turn need not wait for it (2 s of CPU, in a thread)."""
        if self._loading is None:
            self._loading = asyncio.create_task(asyncio.to_thread(self._load), name="load-languages")
        return self._loading

    async def of(self, turn: Prepared, *, within: float = _PATIENCE) -> str:
        """Return the language that `turn` should be answered in; the first one while it takes longer to load."""
        loading = self.begin()
        if not loading.done():
            await asyncio.wait([loading], timeout=within)
        identifier = loading.result() if loading.done() else None
        if identifier is None:
            return self._languages[0]
        return self._judge(identifier, turn)

    def _judge(self, identifier: LanguageIdentifier, turn: Prepared) -> str:
        language, probability = self._guess(identifier, turn.text)
        if probability >= self._clear:
            return language
        earlier = [past.asked for past in turn.past] or [text for role, text in turn.brought if role == "user"]
        kept, sure = self._guess(identifier, "\n".join(earlier[-_EARLIER:])) if earlier else ("", 0.0)
        if sure >= self._clear:
            return kept
        words = re.findall(r"[^\W\d_]+", turn.text.lower())
        if len(words) > _FEW or probability >= 0.5:
            return language
        greeted = _GREETINGS.get(words[0]) if words else None
        return greeted if greeted in self._languages else self._languages[0]

    def _guess(self, identifier: LanguageIdentifier, text: str) -> tuple[str, float]:
        return cast("tuple[str, float]", identifier.classify(text[:MAX_CHARS]))

    def _load(self) -> LanguageIdentifier | None:
        """Read the model; without it every message counts as of the first language."""
        try:
            identifier = copy(_model())
            identifier.set_languages(self._languages)
        except (OSError, ValueError) as error:
            log.error("languages_not_loaded", error=str(error))
            return None
        return identifier
