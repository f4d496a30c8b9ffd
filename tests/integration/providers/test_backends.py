"""Which client serves which model."""

import json

import pytest
from pydantic import SecretStr

from infra.policy import load_policy
from infra.settings import Settings
from schemas.completions import Finish, Incomplete, InvalidRequest, Malformed, ProviderError, Unavailable
from simulators.testing import FaultFields, running
from tests.integration.providers.support import HEAD, asking, raw_server
from tests.integration.providers.test_wires import finish, token, writes
from workers.providers.backends import AddressInvalid, Backends


def _settings(**given: object) -> Settings:
    return Settings.model_validate({"frontier_api_key": SecretStr(""), **given})


@pytest.mark.parametrize(
    ("given", "discovery", "frontier"),
    [
        ({}, "offline", "offline"),
        ({"discovery_base_url": "http://h"}, "tgi", "offline"),
        ({"discovery_base_url": "http://h", "discovery_dialect": "openai"}, "vllm", "offline"),
        ({"frontier_base_url": "http://h"}, "offline", "openai"),
        ({"frontier_api_key": SecretStr("sk-x")}, "offline", "openai"),
    ],
)
async def test_who_serves(given: dict[str, object], discovery: str, frontier: str) -> None:
    """A backend that is configured serves its models; one that is not is offline, and never another in its place."""
    backends = Backends(_settings(**given), load_policy())
    assert backends.for_model("discovery-slm")[0].name == discovery
    assert backends.for_model("frontier")[0].name == frontier
    assert backends.for_model("frontier-lite")[1].backend == "frontier"
    await backends.aclose()


async def test_unknown_models() -> None:
    """A model the policy does not have is nobody's."""
    backends = Backends(_settings(), load_policy())
    with pytest.raises(KeyError):
        backends.for_model("nobody")
    await backends.aclose()


@pytest.mark.parametrize("setting", ["discovery_base_url", "frontier_base_url"])
@pytest.mark.parametrize(
    "url", ["localhost:8080", "file:///etc", "http://", "http://h\x7f", "http://h:port", "http://u:secret@h"]
)
def test_addresses_are_checked_at_start(setting: str, url: str) -> None:
    """What is no address stops the process at its start, naming the setting: a client might take it for a model."""
    with pytest.raises(AddressInvalid, match=f"FAIRLEAD_{setting.upper()}") as refused:
        Backends(_settings(**{setting: url}), load_policy())
    assert "secret" not in str(refused.value)


async def test_keys_and_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each server gets its own key, at the API's usual path, and never a key of the machine's."""
    monkeypatch.setenv("HF_TOKEN", "hf_machine")
    wires = {kind: writes(HEAD + token(kind, "Hi") + finish(kind)) for kind in ("tgi", "frontier")}
    async with raw_server(wires["tgi"]) as tgi, raw_server(wires["frontier"]) as frontier:
        settings = _settings(
            discovery_base_url=tgi.url, frontier_base_url=frontier.url + "/api", frontier_api_key=SecretStr("sk-ours")
        )
        backends = Backends(settings, load_policy())
        for name in ("discovery-slm", "frontier"):
            provider, model = backends.for_model(name)
            items = [item async for item in provider.stream(asking(model.model, model.adapter))]
            assert isinstance(items[-1], Finish)
        await backends.aclose()
    head, _, body = tgi.requests[0].partition(b"\r\n\r\n")
    assert b"Bearer -" in head
    assert b"hf_machine" not in head
    assert json.loads(body)["parameters"]["adapter_id"] == "discovery"
    head, _, body = frontier.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/chat/completions ")
    assert b"Bearer sk-ours" in head
    assert json.loads(body)["response_format"]["json_schema"]["strict"] is True


async def test_unknown_adapters_are_refused_here() -> None:
    """An adapter that no model of the policy has is refused before the server would run its base model instead."""
    async with running("tgi") as simulator:
        backends = Backends(_settings(discovery_base_url=simulator.base_url), load_policy())
        provider, model = backends.for_model("discovery-slm")
        with pytest.raises(InvalidRequest, match="'typo'"):
            _ = [item async for item in provider.stream(asking(model.model, "typo"))]
        await backends.aclose()
        assert simulator.requests() == []


async def test_canary() -> None:
    """The canary finds an adapter that the server does not have, and is content where it has it."""
    async with running("tgi", models=["discovery"]) as whole, running("tgi", models=["other"]) as bare:
        for simulator, loaded in ((whole, True), (bare, False)):
            backends = Backends(_settings(discovery_base_url=simulator.base_url), load_policy())
            if loaded:
                await backends.canary()
            else:
                with pytest.raises(InvalidRequest, match="'discovery'"):
                    await backends.canary()
            await backends.aclose()


@pytest.mark.parametrize(
    ("fields", "kind_of_error"),
    [({"fault": "status", "status": 503}, Unavailable), ({"fault": "close", "after_tokens": 3}, Incomplete)],
)
async def test_a_canary_that_gets_no_answer(fields: FaultFields, kind_of_error: type[ProviderError]) -> None:
    """A server that fails the canary fails it in our words."""
    async with running("tgi") as simulator:
        simulator.control(**fields)
        backends = Backends(_settings(discovery_base_url=simulator.base_url), load_policy())
        with pytest.raises(kind_of_error):
            await backends.canary()
        await backends.aclose()


async def test_a_canary_at_another_address() -> None:
    """A server that is no TGI gives a malformed canary, not a missing adapter."""
    page = HEAD.replace(b"text/event-stream", b"application/json") + b'[{"generated_text": "Hello"}]'
    async with raw_server(writes(page)) as server:
        backends = Backends(_settings(discovery_base_url=server.url), load_policy())
        with pytest.raises(Malformed):
            await backends.canary()
        await backends.aclose()
