"""Processes that outlive who started them, whether in a session or an account of their own or orphaned."""

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
# A server that was told to quit when its parent died needs up to five seconds for that.
_GONE_SECONDS_MAX = 20.0
_POLL_SECONDS = 0.05


@asynccontextmanager
async def none_left() -> AsyncIterator[None]:
    """Fail when a process that was started within still lives soon afterwards. Where there is no /proc, none is seen.

    Raises:
        AssertionError: with the command lines of those that do.

    """
    if sys.platform != "linux":
        yield
        return
    known = frozenset(_living_descendants())
    _adopt_orphans(adopt=True)
    try:
        yield
        deadline = time.monotonic() + _GONE_SECONDS_MAX
        while left := _living_descendants(known):
            if time.monotonic() > deadline:
                running = "\n".join(map(_command_line, left))
                _kill(left)
                raise AssertionError(f"still running, killed now:\n{running}")
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        _adopt_orphans(adopt=False)


def _adopt_orphans(*, adopt: bool) -> None:
    """Let orphans below become children of this process instead of the machine's first, where none would find them."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _living_descendants(known: AbstractSet[int] = frozenset()) -> list[int]:
    """Return those that are neither known nor below a known one. What has ended and was not collected does not live."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended while we looked
            # The command name stands in parentheses and may hold anything, so count from the last one.
            state, parent = status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(status.parent.name))
    found: list[int] = []
    level = [os.getpid()]
    while level:
        level = [child for parent in level for child in children.get(parent, ()) if child not in known]
        found += level
    return found


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _command_line(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        words = "(ended just now)"
    return f"{pid} {words}"
