"""One thread that solves while the training thread goes on.

The compiled solvers hold no interpreter lock, so the rest of the forward pass runs beside them.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


@functools.cache
def _worker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="matching")


def submit(work: Callable[[], T]) -> "Future[T]":
    """Queue `work`; jobs run one after the other in the order they were queued."""
    return _worker().submit(work)


if hasattr(os, "register_at_fork"):
    # A forked child inherits the executor, but not its thread.
    os.register_at_fork(after_in_child=_worker.cache_clear)
