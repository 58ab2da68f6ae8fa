"""A limit on how long something may take that is not ours, such as an environment's step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise in a body that does not end in time.

    It is interrupted as by a key: whatever waits for a device, a socket, a lock or sleeps. Compiled
    code is only once it returns to Python. Without alarm signals (Windows, threads other than the
    main one) there is no limit.

    Args:
        seconds: How long it may take; None is forever.

    Raises:
        TimeoutError: In the body, when its time is up.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if seconds is None or not is_main or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: object) -> None:
        raise TimeoutError(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
