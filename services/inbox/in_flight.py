"""Which thread states this process has sent and has not yet read back from their topic."""

from collections.abc import Iterable
from typing import Final

from shared.events import ThreadStateV1
from shared.stream.records import AnyIncoming

_THREADS_MAX: Final = 100_000


class StatesInFlight:
    """Tells a state that is merely older than the table, while the newer one is on its way, from one that stays behind.

    Only a shortcut: whatever is in doubt counts as behind, and a state sent once too often does no harm. So everything
    is forgotten when the records read do not follow the ones before: another process may have read in between, or a
    transaction was rolled back.
    """

    def __init__(self, threads_max: int = _THREADS_MAX) -> None:
        self._threads_max = threads_max
        self._sent: dict[str, tuple[int, int]] = {}
        self._next_offsets: dict[int, int] = {}

    def sent(self, state: ThreadStateV1) -> None:
        """Note that a state is on its way to the topic."""
        if len(self._sent) >= self._threads_max:
            self._sent.clear()
        self._sent[state.thread_id] = _versions(state)

    def read(self, records: Iterable[AnyIncoming]) -> dict[str, AnyIncoming]:
        """Take the topic's next records; returns, by thread, the newest one that no state on its way will follow."""
        newest: dict[str, AnyIncoming] = {}
        for record in records:
            self._follow(record)
            state = record.event.data
            awaited = self._sent.get(state.thread_id)
            if awaited is None:
                newest[state.thread_id] = record
            elif _versions(state) >= awaited:
                del self._sent[state.thread_id]
        return newest

    def _follow(self, record: AnyIncoming) -> None:
        partition, offset = record.position.partition, record.position.offset
        if self._next_offsets.get(partition) != offset:
            self._sent.clear()
        self._next_offsets[partition] = offset + 1


def _versions(state: ThreadStateV1) -> tuple[int, int]:
    return state.thread_version, state.outcome_version
