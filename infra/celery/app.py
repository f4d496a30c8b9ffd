"""The Celery application. Losing or repeating any of its messages costs latency, never an answer."""

from typing import Final

from celery import Celery

from schemas.agents import Lane
from schemas.names import CELERY_PREFIX

UNDELIVERABLE: Final = "agent.undeliverable"
"""Where kombu puts a message whose binding is missing, instead of dropping it in silence."""


def create_app(redis_url: str) -> Celery:
    """Return the application every lane worker runs."""
    app = Celery("fairlead", broker=redis_url, set_as_current=False)
    app.conf.update(
        # Bodies are ids; nothing but JSON is ever decoded.
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        task_ignore_result=True,
        # A killed worker's turn is not run again by the broker: the lease in the ledger decides, once.
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        # A hint that is held back in a busy process could be taken by an idle one.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        # Without the remote-control socket a worker whose acknowledgement met a Redis outage stops consuming.
        worker_enable_remote_control=True,
        worker_send_task_events=False,
        task_send_sent_event=False,
        task_publish_retry=False,
        task_create_missing_queues=True,
        task_default_queue=UNDELIVERABLE,
        task_queues={lane.value: {"exchange": "", "routing_key": lane.value} for lane in Lane},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "global_keyprefix": CELERY_PREFIX,
            "visibility_timeout": 600,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "deadletter_queue": UNDELIVERABLE,
        },
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # A hint is handed over in milliseconds. If even that hangs, the process is broken: end it.
        task_soft_time_limit=None,
        task_time_limit=None,
    )
    return app
