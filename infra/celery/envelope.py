"""The bytes of one hint: Celery's protocol 2 in kombu's Redis form, as `apply_async` would have written them.

Building them here costs a few microseconds instead of a blocking millisecond; a golden test compares them with
what Celery itself sends, and a stock worker reads them.
"""

import base64
import json
import os
import socket
import uuid

from schemas.agents import Lane
from schemas.ids import TurnId
from schemas.names import TASK_ANSWER

_ORIGIN = f"fairlead-{os.getpid()}@{socket.gethostname()}"
_EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def envelope(lane: Lane, turn_id: TurnId, traceparent: str | None = None) -> str:
    """Return the message that tells a worker of `lane` about a turn. Its only argument is the turn's id."""
    task_id = str(uuid.uuid4())
    body = json.dumps([[turn_id], {}, _EMBED])
    headers: dict[str, object] = {
        "lang": "py",
        "task": TASK_ANSWER,
        "id": task_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": task_id,
        "parent_id": None,
        "argsrepr": "",
        "kwargsrepr": "",
        "origin": _ORIGIN,
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    if traceparent:
        headers["traceparent"] = traceparent
    return json.dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": {
                "correlation_id": task_id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": lane.value},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid.uuid4()),
            },
        }
    )
