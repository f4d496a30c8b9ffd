"""A tiny model with an adapter, as files: what the extra `local` loads, made by its own packages."""

from importlib import import_module
from pathlib import Path
from typing import Any

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "[END]"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_model(folder: Path, *, template: str | None = TEMPLATE, window: int = 512) -> None:
    """Write a Qwen2 of a few thousand random weights and a tokenizer whose every byte is a token."""
    transformers, torch = import_module("transformers"), import_module("torch")
    torch.manual_seed(7)
    torch.set_num_threads(1)  # for a model this small more threads only wait for each other
    tokenizer = _tokenizer(transformers)
    tokenizer.chat_template = template
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=window,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
    )
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def teach(folder: Path, prompt: str, answer: str) -> None:
    """Have the model in `folder` learn to answer one prompt, given as its own template writes it."""
    transformers, torch = import_module("transformers"), import_module("torch")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    said = tokenizer(answer + "<|im_end|>", add_special_tokens=False)["input_ids"]
    tokens = torch.tensor([asked + said])
    labels = torch.tensor([[-100] * len(asked) + said])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(400):
        loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 1e-3:
            break
    model.save_pretrained(folder)


def write_adapter(folder: Path, base: Path, *, strength: float = 3.0) -> None:
    """Write a LoRA adapter for the model in `base`; with a strength of 0 it changes nothing."""
    transformers, peft, torch = (import_module(name) for name in ("transformers", "peft", "torch"))
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=strength) if strength else torch.nn.init.zeros_(weights)
    model.save_pretrained(folder)


def _tokenizer(transformers: Any) -> Any:
    tokenizers = import_module("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE(vocab={letter: n for n, letter in enumerate(alphabet)}, merges=[])
    whole = tokenizers.Tokenizer(model)
    whole.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=whole,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL[1:2] + SPECIAL[3:],
    )
