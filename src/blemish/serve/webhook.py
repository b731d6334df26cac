"""The webhook: each result is posted as JSON to one URL, by a thread with a bounded queue."""

from __future__ import annotations

import logging
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from blemish.serve.responses import dumps

Outcome: TypeAlias = Literal["sent", "retried", "dropped"]

log = logging.getLogger("blemish.serve")

#: Results that wait; the oldest is dropped for a new one.
MAX_WAITING = 1000
#: Seconds before each further attempt; after the last one a result is dropped.
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
#: Seconds for one attempt.
_TIMEOUT = 10.0
#: Seconds for what is left when the service ends.
_LAST_SECONDS = 5.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the POST into a GET somewhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Webhook:
    """Posts results. `post` returns at once.

    A result is sent again after an error, in order, so one that the receiver never takes holds up the others for at
    most the sum of `PAUSES`.

    Args:
        url: Where to.
        count: Called with what became of a result.
        pauses: Seconds before each further attempt.
        max_waiting: Results that wait.
    """

    def __init__(
        self,
        url: str,
        count: Callable[[Outcome], object] = lambda outcome: None,
        *,
        pauses: tuple[float, ...] = PAUSES,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._url, self._count, self._pauses, self._max_waiting = url, count, pauses, max_waiting
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._closing: float | None = None
        self._thread = threading.Thread(target=self._run, name="blemish-webhook", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def post(self, line: Mapping[str, Any]) -> None:
        """Queue a result; the oldest one is dropped if too many wait."""
        data = dumps(line)
        with self._changed:
            if len(self._waiting) >= self._max_waiting:
                self._waiting.popleft()
                self._count("dropped")
            self._waiting.append(data)
            self._changed.notify()

    def close(self) -> None:
        """Send what is left, for some seconds at most, and end the thread."""
        with self._changed:
            self._closing = time.monotonic() + _LAST_SECONDS
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while (data := self._next()) is not None:
            self._count("sent" if self._send(data) else "dropped")

    def _next(self) -> bytes | None:
        with self._changed:
            while not self._waiting:
                if self._closing is not None:
                    return None
                self._changed.wait()
            if self._closing is not None and time.monotonic() > self._closing:
                for _ in self._waiting:
                    self._count("dropped")
                log.warning("The webhook did not take %d results in time; they are dropped.", len(self._waiting))
                return None
            return self._waiting.popleft()

    def _send(self, data: bytes) -> bool:
        for pause in (*self._pauses, None):
            reason = self._attempt(data)
            if reason is None:
                return True
            ends = self._closing is not None and time.monotonic() > self._closing
            if pause is None or ends:
                log.warning("The webhook did not take a result (%s); it is dropped.", reason)
                return False
            self._count("retried")
            with self._changed:
                self._changed.wait_for(lambda: self._closing is not None, pause)
        return False

    def _attempt(self, data: bytes) -> str | None:
        """Post once; return why it failed, or None."""
        request = urllib.request.Request(self._url, data, {"Content-Type": "application/json"}, method="POST")
        try:
            with self._opener.open(request, timeout=_TIMEOUT) as answer:
                return None if 200 <= answer.status < 300 else f"status {answer.status}"
        except urllib.error.HTTPError as error:
            error.close()
            return f"status {error.code}"
        except Exception as error:
            return type(error).__name__
