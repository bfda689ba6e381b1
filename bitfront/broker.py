"""Broker: the doorbell of Celery workers. Messages may be lost or doubled; leases decide.

A message says only that something waits. What a worker does is what it claims from the database.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from bitfront.settings import Settings

logger = logging.getLogger(__name__)

WORK = "bitfront.work"
"""Name of the only task."""
_REDELIVERY_SECONDS = 24 * 3600
_SOCKET_SECONDS = 2
_TASKS_PER_CHILD = 50
_MARGIN_SECONDS = 60.0
_BEGIN_SECONDS = 60.0


def celery_app(settings: Settings) -> Celery:
    """The Celery application of an installation.

    Args:
        settings: its broker and limits.
    """
    app = Celery("bitfront", broker=settings.broker_url)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_retry_on_worker_lost=True,
        task_publish_retry=False,
        # The lease ends a task first; these end a process whose lease thread is stuck too.
        task_time_limit=settings.task_seconds + _MARGIN_SECONDS,
        worker_prefetch_multiplier=1,
        worker_pool_start_method="spawn",
        # A new process imports all it needs: on a busy machine that takes longer than 4 seconds,
        # and one that is ended for it is followed by the next.
        worker_proc_alive_timeout=_BEGIN_SECONDS,
        worker_max_tasks_per_child=_TASKS_PER_CHILD,
        worker_max_memory_per_child=int(settings.max_worker_gb * 2**20) or None,  # KiB
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            # Longer than any task: a lease, not the broker, says when one is done again.
            "visibility_timeout": _REDELIVERY_SECONDS,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": _SOCKET_SECONDS,
            "socket_connect_timeout": _SOCKET_SECONDS,
        },
    )
    return app


def ring(app: Celery, queue: str, task: int) -> bool:
    """Tell the workers of a queue that a task waits; false when the broker cannot be reached."""
    try:
        app.send_task(WORK, args=[task], queue=queue, retry=False, ignore_result=True)
    except (OperationalError, RedisError, OSError) as error:
        logger.warning("the broker cannot be reached: %s", error)
        return False
    return True


def n_unheard(app: Celery, queue: str) -> int:
    """How many messages of a queue no worker took yet; 0 when the broker cannot be reached."""
    try:
        with app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            return int(channel.client.llen(queue))
    except (OperationalError, RedisError, OSError):
        return 0
