"""Sets of questions and answers: JSON Lines with `question` and `answer`, or CSV with these columns."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from typing import Any, Final, cast

from workers.knowledge.blocks import Unreadable

LONGEST_QUESTION: Final = 500
"""Characters."""

_DELIMITERS: Final = (",", ";", "\t")


class NoQuestions(Unreadable):
    """Something else in a format that sets of questions and answers come in."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A question and what is to be answered."""

    question: str
    answer: str


def read_jsonl(text: str) -> list[Answered]:
    """Return what each line holds; empty lines are left out.

    Raises:
        Unreadable: a line is no object with both texts.
    """
    found: list[Answered] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row: Any = json.loads(line)
            except (ValueError, RecursionError):
                raise Unreadable(f"Line {number} is no JSON.") from None
            if not found and not _asks(row):
                raise NoQuestions("It has no 'question' and 'answer' in its first line.")
            if not isinstance(row, dict):
                raise Unreadable(f"Line {number} is no object with 'question' and 'answer'.")
            found.append(_answered(row.get("question"), row.get("answer"), f"Line {number}"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return _some(found)


def _asks(row: object) -> bool:
    return isinstance(row, dict) and bool({"question", "answer"} & cast("dict[str, object]", row).keys())


def read_csv(text: str) -> list[Answered]:
    """Return what each row holds; separated by commas, semicolons or tabs, whichever the head line has.

    Raises:
        Unreadable: the head lacks a column, or a row lacks a text.
    """
    text = text.replace("\r\n", "\n").lstrip()
    head = text.partition("\n")[0]
    reader = csv.reader(StringIO(text), delimiter=max(_DELIMITERS, key=head.count), strict=True)
    try:
        names = [name.strip().lower() for name in next(reader, ())]
        if "question" not in names or "answer" not in names:
            raise NoQuestions("It has no columns 'question' and 'answer' in its first line.")
        return _some(list(_rows(reader, names.index("question"), names.index("answer"))))
    except csv.Error as error:
        raise Unreadable(f"Line {reader.line_num} is no CSV ({error}).") from None


def _rows(reader: Iterator[list[str]], question: int, answer: int) -> Iterator[Answered]:
    for number, row in enumerate(reader, 2):
        if any(cell.strip() for cell in row):
            place = f"Row {number}"
            if len(row) <= max(question, answer):
                raise Unreadable(f"{place} has too few columns.")
            yield _answered(row[question], row[answer], place)


def _answered(question: object, answer: object, place: str) -> Answered:
    if not isinstance(question, str) or not isinstance(answer, str) or not question.strip() or not answer.strip():
        raise Unreadable(f"{place} lacks a text as 'question' or 'answer'.")
    if len(question) > LONGEST_QUESTION:
        raise Unreadable(f"{place} has a question of more than {LONGEST_QUESTION} characters.")
    return Answered(" ".join(question.split()), answer.strip())


def _some(found: list[Answered]) -> list[Answered]:
    if not found:
        raise Unreadable("It has no questions in it.")
    return found
