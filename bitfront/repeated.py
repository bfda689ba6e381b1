"""Repeated: something that is looked after again and again, beside what the process does."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Repeated(ABC):
    """Does the same again and again, in a thread of its own, inside a `with` block.

    Args:
        name: of the thread.
        seconds: between two times, and before the first.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)

    @abstractmethod
    def once(self) -> None:
        """What is done each time; an error that leaves it ends the thread."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stopping.wait(self._seconds):
            self.once()
