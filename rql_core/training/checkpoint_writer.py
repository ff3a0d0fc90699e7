"""Write checkpoints beside training: what is to be written is copied in training, the rest is done in a thread.

At most one write is under way.  Files are written beside their place and renamed, so a kill in the middle of one leaves
the run at its checkpoint before.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_logger = logging.getLogger(__name__)


class CheckpointWriter:
    """Does one job after another in a thread; what a job raised comes out of the next call."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Start a job, once the one before is done; raises what that one raised."""
        self.wait()

        def work() -> None:
            try:
                job()
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=work, name="checkpoint writer")
        self._thread.start()

    def settle(self) -> BaseException | None:
        """Return, when nothing is under way, what will be raised by the next call that raises."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self._error

    def wait(self) -> None:
        """Return when nothing is under way; raises what the job raised."""
        self.settle()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def abandon(self) -> None:
        """Let the job under way finish where an error ends training anyway; its own error is logged."""
        try:
            self.wait()
        except Exception:
            _logger.exception("the last checkpoint could not be written")
