"""The model clients. Each streams one call, never asks twice, and fails only in our own words.

- `backends`: which client serves which model, from settings and policy
- `structured`: one question to the frontier, answered with one JSON object
- `openai`: OpenAI, vLLM and compatible servers, by `openai.AsyncOpenAI`
- `tgi`: Text Generation Inference, by `huggingface_hub.AsyncInferenceClient`
- `local`: the model inside this process, one generation at a time
- `slot`: that model's one load, and what became of it
- `local_model`: that model's files, loaded and run by transformers and peft
- `offline`: rules instead of a model, labelled as such
- `offline_answers`: what it makes of a turn: quotations with their numbers, questions, outlines, steps
- `calling`: what is around every call: its clocks and its span
- `clocks`: first token, next token, whole answer
- `telemetry`: the span of a call
- `token_counts`: real token counts by a server's `/tokenize`
- `reading`: from bytes to deltas and a finish, in each server's dialect
- `sse`: server-sent events, without I/O
- `chatml`: the prompt of Qwen2.5, safe from forged control tokens
- `mapping`: what servers say when they fail, in our words
- `wire`: one HTTP session under the official clients
"""
