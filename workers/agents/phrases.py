"""What we say in our own words beside a model's, in the visitor's language."""

from functools import cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict


class Phrases(BaseModel):
    """Plain text of one language. `{…}` is filled in by whoever uses the phrase."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Of the language, in English: for prompts."""
    sources: str
    not_found: str
    """The knowledge base has no answer."""
    not_read: str
    """The knowledge base could not be read in time."""
    nothing_new: str
    not_ours: str
    """An agent promised what it may not."""
    refused: str
    """No model was asked: the message is spam, or whatever else the policy refuses."""
    heard: str
    """Takes a visitor's words up."""
    documents_say: str
    about: str
    """Where several things are answered: says of which one."""
    outline: str
    to_fill_in: str
    steps: str


@cache
def all_phrases() -> dict[str, Phrases]:
    """Return the phrases of every language we have, by its code."""
    raw = resources.files("workers.agents").joinpath("phrases.yaml").read_text(encoding="utf-8")
    return {code: Phrases.model_validate(found) for code, found in yaml.safe_load(raw).items()}


def phrases(language: str) -> Phrases:
    """Return the phrases of a language; the English ones where we have none."""
    return all_phrases().get(language) or all_phrases()["en"]


_NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "el": "Greek", "et": "Estonian", "fi": "Finnish",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "ja": "Japanese",
    "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "no": "Norwegian", "ro": "Romanian", "ru": "Russian",
    "sk": "Slovak", "sl": "Slovenian", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese",
    "zh": "Chinese",
}  # fmt: skip


def language_name(code: str) -> str:
    """Return what a language is called in English; the code itself where we do not know it."""
    known = all_phrases().get(code)
    return known.name if known else _NAMES.get(code, f"the language with the ISO code {code}")
