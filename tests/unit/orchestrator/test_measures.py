"""The commands that measure routers and features, on sets of a few lines."""

import json
from pathlib import Path

import pytest

from schemas.agents import Agent
from training.agents import accuracy, macro_f1, public, recalls, routers
from training.intents import on_intents
from training.router.fitting import Labelled, fit, temperature_of
from training.router.utterances import held_out
from training.rows import read, split

ROWS = [
    (f"{verb} the {thing} {time}", thing)
    for thing in ("card", "table", "flight")
    for verb in ("book", "show", "cancel", "change", "find")
    for time in ("now", "today")
]


def test_all_rows_train_and_none_that_measures() -> None:
    """Weights come from every row but those of no label; what is of no label is told apart by a share of 0 to 1."""
    told = on_intents(
        [*ROWS, ("what is love", "oos")], [("find a card", "card"), ("the table", "table"), ("who am i", "oos")]
    )
    assert told["trained_on"] == len(ROWS)
    assert told["accuracy"] == 1.0
    assert 0 <= told["oos_auroc"] <= 1


def test_every_fifth_row_of_a_label_is_set_aside() -> None:
    """Four fifths and one fifth of each label, whatever the order of labels."""
    kept, aside = split(ROWS)
    assert (len(kept), len(aside)) == (24, 6)
    assert {label for _, label in aside} == {"card", "table", "flight"}


def test_a_temperature_comes_from_what_each_did_not_see() -> None:
    """Classifiers that are always right get a low temperature, those that are wrong as often a high one."""
    data = Labelled([text for text, _ in ROWS], [label for _, label in ROWS])
    wrong = Labelled(data.texts, [*data.labels[10:], *data.labels[:10]])
    fitted = fit(data)
    assert temperature_of([(fitted, data)]) < 1 < temperature_of([(fitted, data), (fitted, wrong)])


def test_public_labels_name_agents(tmp_path: Path) -> None:
    """Labels that name an agent are taken, at most twenty texts of each; others are left out."""
    clinc = [("hello", "greeting")] * 30 + [("say again", "repeat"), ("yes", "yes"), ("forget it", "cancel")]
    banking = [("it was declined", "declined_transfer"), ("what is the rate", "exchange_rate")]
    for name, rows in (("clinc150_train", clinc), ("banking77_train", banking)):
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert read(tmp_path / "banking77_train.jsonl") == banking
    found = [(row.text, row.agent, row.asked is not None, row.open) for row in public(tmp_path)]
    assert found == [
        *[("hello", Agent.DISCOVERY, False, False)] * 20,
        ("say again", Agent.ADAPTIVE_RESPONSE, True, False),
        ("yes", Agent.DISCOVERY, True, True),
        ("it was declined", Agent.SUPPORT, False, False),
    ]


async def test_routers_are_measured_alone_and_confirmed() -> None:
    """Each router that is named is measured; without a doubt that is worth a call none asks the frontier."""
    told = await routers(held_out()[:20], ("rules", "classifier"))
    assert told.keys() == {"rules", "classifier"}
    assert told["classifier"]["confirmed_accuracy"] >= told["rules"]["confirmed_accuracy"]
    assert told["classifier"]["asked_frontier"] == 0.0


def test_scores_are_what_they_are_called() -> None:
    """Accuracy counts pairs, recall those of an agent, macro-F1 weighs each wanted agent alike."""
    found = [("support", "support"), ("support", "discovery"), ("discovery", "discovery"), ("discovery", "discovery")]
    assert accuracy(found) == 0.75
    assert recalls(found) == {"discovery": 1.0, "support": 0.5}
    assert macro_f1(found) == pytest.approx((2 / 3 + 0.8) / 2)
