"""What we add to the end of an answer, as HTML in the one form that the sanitiser itself would write."""

import html
from collections.abc import Sequence

from schemas.citations import Cited
from workers.answers.sanitise import LINK_REL


def caveat_html(sentence: str) -> str:
    """Return a paragraph of ours."""
    return f"<p>{_escaped(sentence)}</p>"


def sources_html(label: str, cited: Sequence[Cited]) -> str:
    """Return the sources with the numbers of their passages; nothing where there are none."""
    if not cited:
        return ""
    return f"<p>{_escaped(label)} {', '.join(map(_source, _one_for_each(cited)))}</p>"


def _one_for_each(cited: Sequence[Cited]) -> list[tuple[list[int], Cited]]:
    """Passages of one place are one source with several numbers."""
    places: dict[tuple[str, str | None], tuple[list[int], Cited]] = {}
    for one in cited:
        places.setdefault((one.name, one.url), ([], one))[0].append(one.number)
    return list(places.values())


def _source(found: tuple[list[int], Cited]) -> str:
    numbers, one = found
    name = _escaped(one.name)
    if one.url is not None:
        name = f'<a href="{_escaped(one.url)}" rel="{LINK_REL}">{name}</a>'
    return f"[{', '.join(map(str, sorted(numbers)))}] {name}"


def _escaped(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False)
