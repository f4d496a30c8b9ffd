"""A model in the process itself, with real transformers, peft and torch where the extra `local` is installed.

What needs none of them is in `tests/unit/providers/test_local.py`.
"""

import json
import math
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from infra.policy import load_policy
from infra.settings import Settings
from schemas.completions import Delta, Finish, InvalidRequest, LoadFailed, ModelClocks
from schemas.policy import Policy
from tests.integration.providers.local_files import TEMPLATE, teach, write_adapter, write_model
from tests.integration.providers.support import asking, text_of
from workers.providers.backends import Backends
from workers.providers.chatml import chatml
from workers.providers.local_model import PACKAGES, LocalFiles

needs_the_extra = pytest.mark.skipif(
    any(find_spec(name) is None for name in PACKAGES), reason="the extra 'local' is not installed"
)
ANSWER = json.dumps({"dimension": "budget", "html_response": "<p>Grüße 👋 What is it worth?</p>"}, ensure_ascii=False)
CLOCKS = ModelClocks(connect=60, first_token=60, between_tokens=60, total=120)
ADAPTER_WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny model's folder."""
    write_model(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapters(tmp_path: Path, base: Path) -> Path:
    """A folder with the adapter that the policy names."""
    write_adapter(tmp_path / "adapters" / "discovery", base)
    return tmp_path / "adapters"


def _without_adapter() -> Policy:
    policy = load_policy()
    models = dict(policy.models)
    models["discovery-slm"] = models["discovery-slm"].model_copy(update={"adapter": None})
    return policy.model_copy(update={"models": models})


def _backends(base: Path, adapters: Path | None) -> Backends:
    settings = Settings(discovery_dialect="local", local_model=str(base), local_adapters=adapters)
    return Backends(settings, load_policy() if adapters else _without_adapter())


async def _ask(
    backends: Backends, said: str = "What does it cost?", *, tokens: int = 300
) -> tuple[list[Delta], Finish]:
    provider, model = backends.for_model("discovery-slm")
    request = replace(asking(model.model, model.adapter, said=said, clocks=CLOCKS), max_tokens=tokens)
    items = [item async for item in provider.stream(request)]
    finish = items.pop()
    assert isinstance(finish, Finish)
    return [item for item in items if isinstance(item, Delta)], finish


@needs_the_extra
async def test_what_the_model_learned_is_streamed(base: Path) -> None:
    """A model trained on one answer streams it token by token, no character in halves, with its log-probabilities."""
    request = asking("slm")
    teach(base, chatml(request.messages), ANSWER)
    backends = _backends(base, None)
    deltas, finish = await _ask(backends)
    assert text_of([*deltas]) == ANSWER
    assert len(deltas) == len(ANSWER)
    assert max(len(delta.text) for delta in deltas) == 1
    assert sum(len(delta.logprobs) for delta in deltas) == len(ANSWER.encode())
    assert math.exp(sum(sum(delta.logprobs) for delta in deltas)) > 0.5
    prompt = chatml(request.messages)
    controls = sum(prompt.count(token) for token in ("<|im_start|>", "<|im_end|>"))
    bytes_of_others = len(prompt.replace("<|im_start|>", "").replace("<|im_end|>", "").encode())
    assert finish == Finish(
        "eos_token", input_tokens=controls + bytes_of_others, output_tokens=len(ANSWER.encode()) + 1
    )
    await backends.aclose()


@needs_the_extra
async def test_the_adapter_speaks_only_where_it_is_asked_for(base: Path, adapters: Path) -> None:
    """With the adapter a prompt has other probabilities than with the base model alone, and each time the same."""
    first: list[float] = []
    for folder in (adapters, None, adapters, None):
        backends = _backends(base, folder)
        provider, model = backends.for_model("discovery-slm")
        cold = replace(asking(model.model, model.adapter, clocks=CLOCKS), temperature=1e-4, max_tokens=8)
        items = [item async for item in provider.stream(cold)]
        first.append(next(item.logprobs[0] for item in items if isinstance(item, Delta)))
        await backends.aclose()
    with_adapter, alone, with_again, alone_again = first
    assert (with_adapter, alone) == (pytest.approx(with_again), pytest.approx(alone_again))
    assert abs(with_adapter - alone) > 0.01


@needs_the_extra
async def test_one_model_speaks_with_and_without_its_adapter(base: Path, adapters: Path) -> None:
    """Calls with and without the adapter may alternate on one loaded model."""
    backends = _backends(base, adapters)
    provider, model = backends.for_model("discovery-slm")
    first: list[float] = []
    for adapter in ("discovery", None, "discovery", None):
        cold = replace(asking(model.model, adapter, clocks=CLOCKS), temperature=1e-4, max_tokens=8)
        items = [item async for item in provider.stream(cold)]
        first.append(next(item.logprobs[0] for item in items if isinstance(item, Delta)))
    assert first[:2] == pytest.approx(first[2:])
    assert abs(first[0] - first[1]) > 0.01
    await backends.aclose()


@needs_the_extra
@pytest.mark.parametrize("template", [True, False])
async def test_nobodys_words_become_control_tokens(tmp_path: Path, template: bool) -> None:
    """A visitor's `<|im_end|>`, or the tokenizer's own `[END]`, is read letter by letter, by template and without."""
    write_model(tmp_path / "m", template=TEMPLATE if template else None)
    backends = _backends(tmp_path / "m", None)
    counts = [(await _ask(backends, said, tokens=1))[1].input_tokens for said in ("", "<|im_end|>", "<|im_start|>")]
    assert counts[0] is not None
    assert counts == [counts[0], counts[0] + len("< |im_end|>"), counts[0] + len("< |im_start|>")]
    assert (await _ask(backends, "[END]", tokens=1))[1].input_tokens == counts[0] + len("[ END]")
    await backends.aclose()


@needs_the_extra
async def test_a_prompt_that_leaves_no_room_is_refused(base: Path) -> None:
    """What does not fit the model's window is refused, and what is cut by the budget of tokens says so."""
    backends = _backends(base, None)
    with pytest.raises(InvalidRequest, match="no room"):
        await _ask(backends, "word " * 60)
    _, finish = await _ask(backends, tokens=1)
    assert (finish.reason, finish.output_tokens) in {("length", 1), ("eos_token", 1)}
    await backends.aclose()


@needs_the_extra
async def test_a_consumer_who_leaves_frees_the_model(base: Path) -> None:
    """A stream that is left ends its generation, and the next call has the model."""
    backends = _backends(base, None)
    provider, model = backends.for_model("discovery-slm")
    for _ in range(3):
        async with aclosing(provider.stream(asking(model.model, clocks=CLOCKS))) as items:
            await anext(items)
    _, finish = await _ask(backends, tokens=4)
    assert finish.output_tokens in range(1, 5)
    await backends.aclose()


def _truncate(base: Path, _: Path) -> None:
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _lose_a_weight(base: Path, _: Path) -> None:
    torch = import_module("safetensors.torch")
    weights = torch.load_file(base / "model.safetensors")
    del weights["model.layers.1.self_attn.q_proj.weight"]
    torch.save_file(weights, base / "model.safetensors", metadata={"format": "pt"})


def _pickle(base: Path, _: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


def _foreign_code(base: Path, _: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    config["model_type"] = "evil"
    (base / "config.json").write_text(json.dumps(config))
    (base / "evil.py").write_text("raise SystemExit('foreign code ran')")


def _empty_adapter(base: Path, adapters: Path) -> None:
    write_adapter(adapters / "discovery", base, strength=0)


def _pickled_adapter(_: Path, adapters: Path) -> None:
    (adapters / "discovery" / ADAPTER_WEIGHTS).rename(adapters / "discovery" / "adapter_model.bin")


def _foreign_adapter(_: Path, adapters: Path) -> None:
    torch = import_module("safetensors.torch")
    place = adapters / "discovery" / ADAPTER_WEIGHTS
    weights = {name.replace("layers", "blocks"): value for name, value in torch.load_file(place).items()}
    torch.save_file(weights, place, metadata={"format": "pt"})


@needs_the_extra
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_truncate, "SafetensorError"),
        (_lose_a_weight, "missing or of another shape"),
        (_pickle, "no weights in safetensors"),
        (_foreign_code, "ValueError|OSError"),
        (_empty_adapter, "changes nothing"),
        (_pickled_adapter, f"lacks {ADAPTER_WEIGHTS}"),
        (_foreign_adapter, "changes nothing"),
    ],
)
async def test_files_that_are_no_good_fail_the_load(
    base: Path, adapters: Path, spoil: Callable[[Path, Path], None], why: str
) -> None:
    """Broken, incomplete, unsafe or foreign files fail the load: nothing made up at random ever answers."""
    spoil(base, adapters)
    backends = _backends(base, adapters)
    for _ in range(2):
        with pytest.raises(LoadFailed, match=why):
            await _ask(backends)
    assert backends.skipped("discovery-slm") == "load_failure"
    assert backends.skipped("frontier") is None
    await backends.aclose()


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([], "no model here; set FAIRLEAD_LOCAL_MODEL"),
        (["base/config.json"], "no weights in safetensors"),
        (["base/config.json", "base/a.safetensors"], "lacks adapter_config.json and adapter_model.safetensors"),
        (["base/config.json", "base/a.safetensors", "ad/discovery/adapter_config.json"], f"lacks {ADAPTER_WEIGHTS}"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, files: list[str], why: str) -> None:
    """A look at the files names the first thing that is missing and the setting that says where to look."""
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    settings = Settings(local_model=str(tmp_path / "base"), local_adapters=tmp_path / "ad")
    assert why in (LocalFiles.of(settings, load_policy()).lacking_files() or "")


def test_an_adapter_without_a_folder_is_missing(tmp_path: Path) -> None:
    """An adapter in the policy is never left out unsaid, and a policy without one needs none."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    settings = Settings(local_model=str(tmp_path))
    assert "FAIRLEAD_LOCAL_ADAPTERS" in (LocalFiles.of(settings, load_policy()).lacking_files() or "")
    assert LocalFiles.of(settings, _without_adapter()).lacking_files() is None


def test_a_name_is_looked_for_on_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a directory the policy's name of the model counts; it is found in the local cache or not at all."""
    files = LocalFiles.of(Settings(), load_policy())
    assert files.model == "Qwen/Qwen2.5-14B-Instruct"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "no model here" in (files.lacking_files() or "")


async def test_who_serves_locally() -> None:
    """The dialect decides: an address beside it is not asked, nothing is loaded, and discovery counts as served."""
    settings = Settings(discovery_dialect="local", discovery_base_url="http://h")
    backends = Backends(settings, load_policy())
    assert backends.for_model("discovery-slm")[0].name == "local"
    assert backends.skipped("discovery-slm") is None
    assert backends.degraded() == {"discovery model": None}
    assert "discovery" in settings.served_backends
    await backends.aclose()
