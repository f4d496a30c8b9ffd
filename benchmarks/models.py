"""The request that a discovery turn sends to its model, as bytes: for loops that have nothing of ours in them."""

import json
from dataclasses import dataclass
from typing import Any, Final

from schemas.agents import Agent
from schemas.completions import Message
from simulators.process import Dialect
from workers.agents.artefact import artefact
from workers.agents.discovery.answer import schema_of
from workers.providers.chatml import chatml

MESSAGE: Final = "We have three sites and too much overtime. What would this cost us?"
HEADERS: Final = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class BareRequest:
    """Where to send what."""

    dialect: Dialect
    url: str
    body: bytes

    def text_of(self, event: Any) -> str:
        """Return the visible text in a decoded event."""
        if self.dialect == "tgi":
            token = event["token"]
            return "" if token["special"] else token["text"]
        choices = event["choices"]
        return choices[0]["delta"].get("content") or "" if choices else ""


def bare_request(dialect: Dialect, model: str) -> BareRequest:
    """Return the request to a model server at this base URL."""
    if dialect == "tgi":
        return BareRequest(dialect, f"{model}/", json.dumps(_tgi_body()).encode())
    return BareRequest(dialect, f"{model}/v1/chat/completions", json.dumps(_openai_body()).encode())


def _messages() -> tuple[Message, ...]:
    return Message("system", artefact(Agent.DISCOVERY).system), Message("user", MESSAGE)


def _tgi_body() -> dict[str, object]:
    parameters = {
        "adapter_id": "discovery",
        "max_new_tokens": 400,
        "temperature": 0.7,
        "do_sample": True,
        "return_full_text": False,
        "details": True,
        "grammar": {"type": "json", "value": schema_of()},
    }
    return {"inputs": chatml(_messages()), "stream": True, "parameters": parameters}


def _openai_body() -> dict[str, object]:
    schema = {"name": "answer", "strict": True, "schema": schema_of()}
    return {
        "model": "discovery",
        "messages": [{"role": m.role, "content": m.content} for m in _messages()],
        "max_completion_tokens": 400,
        "temperature": 0.7,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": True,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
