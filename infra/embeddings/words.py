"""Words as search knows them: folded, without endings, in the languages a knowledge base is written in.

Full text and the fitted vectors share them. They hold nothing but letters, digits and marks, whatever a visitor wrote.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from typing import Final, cast

import snowballstemmer

DEFAULT: Final = "en"
"""Of texts too short to tell. A question is taken in every language of its knowledge base, so that they are found."""

MOST_CHARS: Final = 2_000
"""Of a question, the rest is not read."""

MOST_WORDS: Final = 32
"""Different ones of a question."""

_LONGEST: Final = 48
"""Characters of a word; what is longer is no word."""

_STEMMERS: Final = {
    "de": "german",
    "en": "english",
    "es": "spanish",
    "fr": "french",
    "it": "italian",
    "nl": "dutch",
    "pt": "portuguese",
}

_COMMON_TEXT: Final = {
    "de": "aber als auch auf aus bei bin bist da dann das dass dem den der des die doch du ein eine einem einen "
    "einer er es für haben hat ich ihr im in ist ja kann können man mein mit nach nicht noch nur oder "
    "sein sich sie sind so über um und uns unser von vor was welche wenn wer werden wie wir wird wo zu "
    "zum zur",
    "en": "a about all an and any are as at be been but by can could did do does for from get had has have how "
    "i if in into is it its me my no not of on or our should so some than that the their them then there "
    "these they this to us was we what when where which who why will with would you your",
    "es": "al algo como con cuál cuándo de del dónde el ella en es esa ese esta este está hay la las le lo los "
    "más me mi muy no nos o para pero por porque puedo que qué se ser si sin sobre son su sus también "
    "tiene un una uno y ya yo",
    "fr": "à au aux avec avez ce ces cette comment dans de des du elle en est et être faire il ils j je l la le "
    "les leur mais mes mon ne nos notre nous on où ou par pas pour puis qu quand que quel quelle qui sa "
    "se ses si son sont sur un une vos votre vous y",
    "it": "a al alla anche che chi ci come con cosa da dal dei del della delle di dove e è gli ha ho i il in io "
    "la le lo ma mi mia mio nel nella non o per perché più posso quale quando se si sono su un una uno vi",
    "nl": "aan als bij dan dat de die dit door een en er voor hebben heeft het hoe ik in is je kan maar met "
    "mijn naar niet nog of om onze ook op te tot uit van wat we wel welke wij worden zijn zo",
    "pt": "a ao aos as com como da das de do dos e é ela ele em entre essa esse está eu foi há isso já mais mas "
    "me meu minha muito na não nas no nos o onde os ou para pela pelo por porque posso qual quando que "
    "quem se sem ser seu são sobre sua também tem um uma você",
}
"""Words that any text has, by language."""

_COMMON: Final = {language: frozenset(said.split()) for language, said in _COMMON_TEXT.items()}
_EVERY_COMMON: Final = frozenset(word for common in _COMMON.values() for word in common)
_WORD: Final = re.compile(r"[^\W_]+")
_UNSPACED: Final = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0eff]+")
"""Scripts that put no space between words: there, each two characters count as one."""


def words(text: str) -> Iterator[str]:
    """Yield the words of a text in lower case, in order."""
    for found in _WORD.finditer(unicodedata.normalize("NFKC", text).lower()):
        word = found[0]
        if _UNSPACED.fullmatch(word):
            yield from (word[at : at + 2] for at in range(max(1, len(word) - 1)))
        elif len(word) <= _LONGEST:
            yield word


def language_of(text: str) -> str:
    """Return the language whose common words a text has most of; `DEFAULT` where it has none."""
    seen = list(words(text[:20_000]))
    scores = {language: sum(word in common for word in seen) for language, common in _COMMON.items()}
    best = max(scores, key=scores.__getitem__)
    return best if scores[best] > scores[DEFAULT] else DEFAULT


def terms(text: str, language: str) -> list[str]:
    """Return the terms of a text in a language, in order, with repetitions."""
    return [_term(word, language) for word in words(text)]


def asked_terms(text: str, languages: Iterable[str]) -> list[tuple[int, str]]:
    """Return the different terms of a question, each with the number of its word.

    A word has a term in each of the languages. Words that any text has are left out, unless there are no others.
    """
    found = list(dict.fromkeys(words(text[:MOST_CHARS])))
    telling = [word for word in found if word not in _EVERY_COMMON] or found
    spoken = [language for language in sorted(set(languages)) if language in _STEMMERS] or [DEFAULT]
    numbers: dict[str, int] = {}
    for number, word in enumerate(telling[:MOST_WORDS]):
        for language in spoken:
            numbers.setdefault(_term(word, language), number)
    return [(number, term) for term, number in numbers.items()]


@lru_cache(maxsize=200_000)
def _term(word: str, language: str) -> str:
    stemmed = _stemmer(language)(word)
    folded = "".join(char for char in unicodedata.normalize("NFKD", stemmed) if not unicodedata.combining(char))
    return folded or stemmed


@cache
def _stemmer(language: str) -> Callable[[str], str]:
    return cast("Callable[[str], str]", snowballstemmer.stemmer(_STEMMERS[language]).stemWord)
