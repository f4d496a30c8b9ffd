"""The base model with its adapters, by transformers and peft: from files that are here, and of safe formats only.

Both packages and torch are the optional extra `local`. They are imported when the model is loaded and not before.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]  its hooks are untyped
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from infra.settings import Settings
from schemas.completions import CompletionRequest, Delta, Finish, InvalidRequest, LoadFailed, Message
from schemas.policy import Policy
from workers.providers.chatml import chatml, neutralised
from workers.providers.slot import Emit, Generate

PACKAGES: Final = ("torch", "transformers", "accelerate", "peft")

_ADAPTER_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")
_SAMPLING: Final = {"do_sample": True, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
"""As model servers sample: what a model's own files suggest would make one policy two behaviours."""


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Which model this process would load, from where."""

    model: str
    """A directory, or a name in the machine's Hugging Face cache. Nothing is ever downloaded."""
    adapters: Mapping[str, Path | None]
    """A folder for each adapter that the policy names; None where no setting says where they are."""

    @classmethod
    def of(cls, settings: Settings, policy: Policy) -> "LocalFiles":
        """Return what settings and policy ask for."""
        served = [model for model in policy.models.values() if model.backend == "discovery"]
        named = sorted({model.adapter for model in served if model.adapter is not None})
        folder = settings.local_adapters
        return cls(
            model=settings.local_model or next((model.model for model in served), ""),
            adapters={name: folder / name if folder is not None else None for name in named},
        )

    def folder(self) -> Path | None:
        """Return where the model's files are; None if they are not on this machine."""
        if not self.model:
            return None
        if (given := Path(self.model)).is_dir():
            return given
        try:
            return Path(snapshot_download(self.model, local_files_only=True))
        except (HFValidationError, LocalEntryNotFoundError, OSError):
            return None

    def lacking(self) -> str | None:
        """Return a sentence on what is missing on this machine, as far as a look tells; None if it may be loaded."""
        return lacking_packages() or self.lacking_files()

    def lacking_files(self) -> str | None:
        """Return a sentence on the first file that is missing; None if all are there."""
        folder = self.folder()
        if folder is None or not (folder / "config.json").is_file():
            return f"'{self.model}' is no model here; set FAIRLEAD_LOCAL_MODEL to its directory"
        if not any(folder.glob("*.safetensors")):
            return f"'{self.model}' has no weights in safetensors; other formats may hold code and are not read"
        for name, place in self.adapters.items():
            if place is None:
                return f"the policy names the adapter '{name}'; set FAIRLEAD_LOCAL_ADAPTERS to the folder it is in"
            if absent := [file for file in _ADAPTER_FILES if not (place / file).is_file()]:
                return f"the adapter '{name}' lacks {' and '.join(absent)} in {place}"
        return None

    def load(self) -> Generate:
        """Bring model and adapters into memory: onto the GPU if there is one. Blocks for as long as that takes.

        Raises:
            LoadFailed: naming what is missing or does not fit.
            Exception: whatever the libraries raise.
        """
        folder = self.folder()
        if (lacking := self.lacking()) or folder is None:
            raise LoadFailed(lacking)
        torch, transformers = import_module("torch"), import_module("transformers")
        transformers.utils.logging.disable_progress_bar()
        here = {"local_files_only": True, "trust_remote_code": False}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **here)
        model, told = transformers.AutoModelForCausalLM.from_pretrained(
            folder, **here, use_safetensors=True, dtype="auto", device_map={"": device}, output_loading_info=True
        )
        # What the files lack the library makes up at random, and says so in a warning only.
        if lost := [*told["missing_keys"], *told["mismatched_keys"]]:
            raise LoadFailed(f"{len(lost)} weights of '{self.model}' are missing or of another shape, as {lost[0]}")
        return _Speaker(_adapted(model, self.adapters), tokenizer, torch, transformers)


def lacking_packages() -> str | None:
    """Return a sentence on the packages that are not installed; None if all are."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    return f"the packages {', '.join(missing)} are missing; install the extra 'local'" if missing else None


def _adapted(model: Any, adapters: Mapping[str, Path | None]) -> Any:
    """Put every adapter on the model."""
    for number, (name, place) in enumerate(adapters.items()):
        if number == 0:
            model = import_module("peft").PeftModel.from_pretrained(model, place, adapter_name=name)
        else:
            model.load_adapter(place, adapter_name=name)
        # An adapter begins as one that changes nothing: with keys of another model, it would stay so unsaid.
        if not any("lora_B" in key and name in key.split(".") and p.any() for key, p in model.named_parameters()):
            raise LoadFailed(f"the adapter '{name}' changes nothing in this model; was it trained for another one?")
    model.eval()
    return model


@dataclass(frozen=True, slots=True)
class _Speaker:
    """A loaded model; calling it generates one answer."""

    model: Any
    tokenizer: Any
    torch: Any
    transformers: Any

    def __call__(self, request: CompletionRequest, emit: Emit) -> Finish:
        """Generate; see `workers.providers.slot.Generate`. The output is not constrained to the request's schema."""
        inputs = self._encoded(request.messages)
        length = int(inputs["input_ids"].shape[1])
        most = getattr(self.model.config, "max_position_embeddings", None)
        if most is not None and length + request.max_tokens > most:
            raise InvalidRequest(f"a prompt of {length} tokens leaves no room for an answer in the model's {most}")
        ends = self._ends()
        listener = _Listener(self.tokenizer, emit, ends, self.torch)
        with self._speaking_as(request.adapter):
            self.model.generate(
                **inputs,
                **_SAMPLING,
                temperature=request.temperature,
                max_new_tokens=request.max_tokens,
                pad_token_id=self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else ends[0],
                logits_processor=self.transformers.LogitsProcessorList([listener.weigh]),
                stopping_criteria=self.transformers.StoppingCriteriaList([listener.hear]),
            )
        listener.close()
        return Finish(
            "eos_token" if listener.ended else "length", input_tokens=length, output_tokens=len(listener.tokens)
        )

    def _speaking_as(self, adapter: str | None) -> AbstractContextManager[object]:
        if adapter is not None:
            self.model.set_adapter(adapter)
            return nullcontext()
        return self.model.disable_adapter() if hasattr(self.model, "disable_adapter") else nullcontext()

    def _encoded(self, messages: Sequence[Message]) -> dict[str, Any]:
        """Return the prompt as tensors: by the tokenizer's own template where it has one, else as ChatML."""
        said = [Message(m.role, self._harmless(m.content)) for m in messages]
        if self.tokenizer.chat_template:
            turns = [{"role": m.role, "content": m.content} for m in said]
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        else:
            text = chatml(said)
        encoded = self.tokenizer(text, return_tensors="pt", add_special_tokens=False)
        return {name: encoded[name].to(self.model.device) for name in ("input_ids", "attention_mask")}

    def _harmless(self, text: str) -> str:
        """Return `text` without anything that this tokenizer would take for a control token."""
        text = neutralised(text)
        added = {str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        for token in added.union(self.tokenizer.all_special_tokens):
            text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text

    def _ends(self) -> list[int]:
        """Return the tokens that end an answer."""
        known: int | list[int] | None = self.model.generation_config.eos_token_id
        if known is None:
            known = self.tokenizer.eos_token_id
        if known is None:
            raise InvalidRequest("the local model has no token that ends an answer; look at its generation_config.json")
        return [known] if isinstance(known, int) else known


@dataclass(slots=True)
class _Listener:
    """Follows a generation token by token: its text, its log-probabilities, and whether anybody still listens."""

    tokenizer: Any
    emit: Emit
    ends: Sequence[int]
    torch: Any
    tokens: list[int] = field(default_factory=list[int])
    ended: bool = False
    """Whether the model ended of its own accord."""
    _scores: Any = None
    _logprobs: list[float] = field(default_factory=list[float])
    _from: int = 0
    """The text of the tokens before `_to` is given out; that from `_from` on is decoded again, for its context."""
    _to: int = 0
    _left: bool = False

    def weigh(self, _: Any, scores: Any) -> Any:
        """Keep the scores of the next token, before temperature changes them."""
        self._scores = scores
        return scores

    def hear(self, tokens: Any, _: Any, **__: Any) -> Any:
        """Take the token just chosen; tell for each row whether to stop."""
        if not self.ended and not self._left:
            self._take(int(tokens[0, -1]))
        stop = self.ended or self._left
        return self.torch.full((tokens.shape[0],), stop, dtype=self.torch.bool, device=tokens.device)

    def close(self) -> None:
        """Give out what was held back: half a character, if the model stopped there."""
        self._give(whole=False)

    def _take(self, token: int) -> None:
        self.tokens.append(token)
        self.ended = token in self.ends
        if self.ended:
            return
        self._logprobs.append(float(self._scores[0].log_softmax(-1)[token]))
        self._give(whole=True)

    def _give(self, *, whole: bool) -> None:
        """Give out the text that is new. A character may take several tokens: `whole` waits for all of them."""
        before = self._text(self._from, self._to)
        text = self._text(self._from, len(self.tokens))
        if len(text) <= len(before) or (whole and text.endswith("\ufffd")):
            return
        self._from, self._to = self._to, len(self.tokens)
        logprobs, self._logprobs = tuple(self._logprobs), []
        fresh = text[len(before) :]
        # The text of a character that took several tokens is that of the first.
        self._left = not self.emit(Delta(fresh, logprobs, (fresh, *("" for _ in logprobs[1:]))))

    def _text(self, start: int, end: int) -> str:
        return self.tokenizer.decode(self.tokens[start:end], skip_special_tokens=True)
