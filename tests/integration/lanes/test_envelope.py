"""Our hints are Celery's own messages, byte by byte where it matters."""

import base64
import json
from typing import cast

from redis import Redis

from infra.celery.app import create_app
from infra.celery.dispatch import Dispatcher, Hint
from infra.celery.envelope import envelope
from infra.redis.client import create_redis
from schemas.agents import Lane
from schemas.ids import TurnId
from schemas.names import CELERY_PREFIX, TASK_ANSWER

TURN = TurnId("00000000-0000-0000-0000-000000000001")
Message = dict[str, object]


def _shape(value: object) -> object:
    """Return the value with everything that differs between two sends replaced by its type."""
    if isinstance(value, dict):
        return {k: _shape(v) for k, v in cast("Message", value).items()}
    return type(value).__name__ if isinstance(value, str) and value else value


def test_a_hint_has_every_field_that_celery_would_send(redis_url: str) -> None:
    """Against what `apply_async` writes, a hint has the same fields of the same types, and the same body."""
    app = create_app(redis_url)

    @app.task(name=TASK_ANSWER)
    def answer(turn_id: str) -> None:
        del turn_id

    answer.apply_async(args=(TURN,), queue=Lane.DISCOVERY.value, retry=False)
    with Redis.from_url(redis_url) as redis:
        [sent] = cast("list[bytes]", redis.lrange(CELERY_PREFIX + Lane.DISCOVERY.value, 0, -1))
    app.close()

    theirs, ours = cast("Message", json.loads(sent)), cast("Message", json.loads(envelope(Lane.DISCOVERY, TURN)))

    for message in (theirs, ours):
        message["body"] = json.loads(base64.b64decode(str(message["body"])))
        cast("Message", message["properties"])["reply_to"] = ""
        # Ours leave the arguments out of the headers, where Celery repeats them for display.
        cast("Message", message["headers"]).update(argsrepr="", kwargsrepr="")
    assert _shape(ours["properties"]) == _shape(theirs["properties"])
    assert _shape(ours["headers"]) == _shape(theirs["headers"])
    assert set(ours) == set(theirs)
    assert (
        ours["body"]
        == theirs["body"]
        == [[TURN], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    )


async def test_a_hundred_hints_leave_in_one_round_trip_and_in_order(redis_url: str) -> None:
    """A batch of hints lies in its lanes, oldest to be popped first; without Redis, sending says so."""
    redis, gone = create_redis(redis_url), create_redis("redis://127.0.0.1:1/0")
    turns = [TurnId(f"00000000-0000-0000-0000-{n:012d}") for n in range(100)]

    assert await Dispatcher(redis).send([Hint(turn, Lane.SUPPORT) for turn in turns])
    assert not await Dispatcher(gone).send([Hint(TURN, Lane.SUPPORT)])

    popped = [json.loads(str(await redis.rpop(CELERY_PREFIX + Lane.SUPPORT.value))) for _ in turns]
    assert [json.loads(base64.b64decode(m["body"]))[0][0] for m in popped] == turns
    await redis.aclose()
    await gone.aclose()
