"""Real token counts, from the server whose model will read them: asked where they matter, and remembered."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Literal, cast

import jiter
from pydantic_core import to_json

from schemas.completions import ProviderError
from workers.agents.tokens import PER_MESSAGE, estimated_tokens
from workers.providers.wire import Wire

PATIENCE_SECONDS: Final = 0.2
"""For all counts of one turn."""
REST_SECONDS: Final = 30.0
"""After a count that did not come: so long estimates are used at once."""

_MOST: Final = 8_192
_AT_ONCE: Final = 24


class TokenCounts:
    """Counts by `/tokenize` of one server; what it has not counted is estimated, and never too low."""

    def __init__(
        self, *, wire: Wire, base_url: str, dialect: Literal["tgi", "openai"], model: str, api_key: str
    ) -> None:
        """Ask the server at `base_url`, without the path of an API."""
        self._wire = wire
        self._url = f"{base_url}/tokenize"
        self._dialect = dialect
        self._model = model
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {api_key}"}
        self._known: OrderedDict[bytes, int] = OrderedDict()
        self._rests_until = 0.0

    def count(self, text: str) -> int:
        """Return the tokens of one message, with those of the template around it."""
        known = self._known.get(_key(text))
        return estimated_tokens(text) if known is None else known + PER_MESSAGE

    async def learn(self, texts: Iterable[str]) -> None:
        """Have the server count what is not known yet, all at once; give up quickly and for a while."""
        now = asyncio.get_running_loop().time
        unknown = {_key(text): text for text in texts}
        missing = [(key, text) for key, text in unknown.items() if key not in self._known][:_AT_ONCE]
        if not missing or now() < self._rests_until:
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                counts = await asyncio.gather(*(self._ask(text) for _, text in missing))
        except (TimeoutError, ProviderError, ValueError, LookupError, TypeError):
            self._rests_until = now() + REST_SECONDS
            return
        self._known.update((key, counted) for (key, _), counted in zip(missing, counts, strict=True))
        while len(self._known) > _MOST:
            self._known.popitem(last=False)

    async def _ask(self, text: str) -> int:
        body = {"inputs": text} if self._dialect == "tgi" else self._prompt(text)
        reply = await self._wire.send(
            "POST", self._url, headers=self._headers, body=to_json(body), connect=PATIENCE_SECONDS
        )
        try:
            if reply.status != 200:
                raise ValueError("no count")
            answer: object = jiter.from_json(b"".join([part async for part in reply]))
        finally:
            reply.close()
        if self._dialect == "tgi":
            return len(cast("list[object]", answer))
        return cast("dict[str, int]", answer)["count"]

    def _prompt(self, text: str) -> dict[str, object]:
        return {"model": self._model, "prompt": text, "add_special_tokens": False}


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest()
