"""The loop and HTTP share a pool of connections: this keeps requests, however many come, from taking the loop's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.problems import busy
from shared.settings import Settings


class Bulkhead:
    """As many places as requests may hold connections at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._places = asyncio.Semaphore(settings.http_places)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place and hold it.

        Raises:
            ProblemError: none came free in time.

        """
        wait_ms = self._settings.http_wait_ms
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await self._places.acquire()
        except TimeoutError:
            raise busy(self._settings.http_places, wait_ms) from None
        try:
            yield
        finally:
            self._places.release()
