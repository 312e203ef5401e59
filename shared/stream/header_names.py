"""Header names of any bytes: Kafka takes them, aiokafka takes no batch apart that has one which is no UTF-8.

Nothing behind such a record would ever be read. Its batch is read once more, with lone surrogates for what is no UTF-8:
no event may hold those, so the record is set aside like others that are no events.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, SupportsIndex

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy
from aiokafka.record.util import decode_varint_py


def take_any_header_name() -> None:
    """Let all consumers of this process take them; aiokafka has no setting for it."""
    fetcher.MemoryRecords = _Records


def printable(name: str) -> str:
    r"""Give a name that can be written again: `\xff` for a byte that is no UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


class _Records(_MemoryRecordsPy):  # type: ignore[misc]  # aiokafka ships no types
    """What a fetch has brought of a partition."""

    def next_batch(self) -> "_Batch":
        raw = self._next_slice
        return _Batch(super().next_batch(), raw)


class _Batch:
    """A batch read the fast way, and from where that fails the patient one."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        count = 0
        try:
            for record in self._batch:
                yield record
                count += 1
        except (UnicodeDecodeError, CorruptRecordException):  # the latter without aiokafka's C extension
            yield from islice(_PatientBatch(self._raw), count, None)


class _PatientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # aiokafka ships no types
    _buffer: bytearray

    def __iter__(self) -> "_PatientBatch":
        super().__iter__()
        self._buffer = _Text(self._buffer)
        return self

    def _read_msg(self) -> Any:
        return super()._read_msg(decode_varint_py)  # the fast one takes no subclass of bytearray


class _Text(bytearray):
    """Bytes of which each part can be decoded."""

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        part = super().__getitem__(at)
        return _Text(part) if isinstance(part, bytearray) else part

    def decode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> str:
        return super().decode(encoding, errors)
