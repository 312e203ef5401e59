"""One child process that cannot outlive its parent, with its output in a log file."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from deploy.local.accounts import Account

GUARD = Path(__file__).with_name("guard.py")
LOG_BYTES_MAX = 16 * 1024 * 1024
LOG_TAIL_BYTES = 4096
LOG_TAIL_LINES = 15
KILL_SECONDS_MAX = 10.0
# What a server needs of our environment. The rest could change it: PGPORT, JAVA_TOOL_OPTIONS, KAFKA_OPTS...
INHERITED_NAMES = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")


class ChildProcess:
    """A started command: signals, a clean stop with a deadline, its log and its peak memory."""

    def __init__(self, process: asyncio.subprocess.Process, log_path: Path) -> None:
        self._process = process
        self._peak_rss_bytes = 0
        self.log_path = log_path

    @classmethod
    async def start(
        cls,
        command: Sequence[str | Path],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        account: Account | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> "ChildProcess":
        """Start the command with exactly this environment; it gets ``death_signal`` when the calling thread ends.

        The kernel ties a child to the thread that forked it, so call this from a loop that lives as long as the child.
        """
        _rotate(log_path)
        uid, gid = (account.uid, account.gid) if account else (-1, -1)
        guarded = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), str(int(death_signal)), str(uid), str(gid)]
        with log_path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *guarded,
                *(str(part) for part in command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=server_environment() if env is None else env,
                cwd=cwd,
            )
        return cls(process, log_path)

    @property
    def pid(self) -> int:
        """The process id; it is also the id of its process group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    @property
    def running(self) -> bool:
        """Whether the process has not ended (a paused one still runs)."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait until the process ends and return its exit status."""
        return await self._process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone; nothing happens when it has ended."""
        if self.running:
            # Not by `Popen.send_signal`: it looks first whether the process has ended, and may so take the exit status
            # away from the event loop, which then reports 255.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def pause(self) -> None:
        """Freeze the process and its descendants, as a machine that hangs would."""
        self._signal_tree(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process run on."""
        self._signal_tree(signal.SIGCONT)

    async def kill(self) -> None:
        """End the process and its descendants at once, as a power cut would."""
        if self.running:
            self.peak_rss_bytes()
            # Frozen first, so that it cannot fork a child between our look and the kill.
            self.send_signal(signal.SIGSTOP)
            self._signal_tree(signal.SIGKILL)
        await asyncio.wait_for(self.wait(), KILL_SECONDS_MAX)

    async def stop(self, *, deadline_seconds: float, stop_signal: signal.Signals = signal.SIGTERM) -> int:
        """Ask the process to end, kill it after the deadline, and return its exit status."""
        if self.running:
            self.peak_rss_bytes()
            self.send_signal(stop_signal)
            self.resume()  # a frozen process would not see the request
        try:
            return await asyncio.wait_for(self.wait(), deadline_seconds)
        except TimeoutError:
            await self.kill()
            return await self.wait()

    def peak_rss_bytes(self) -> int:
        """Return the most memory that the process has had resident (0 where the system does not tell)."""
        if self.running:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
                    if line.startswith("VmHWM:"):
                        self._peak_rss_bytes = max(self._peak_rss_bytes, int(line.split()[1]) * 1024)
        return self._peak_rss_bytes

    def log_tail(self) -> str:
        """Return the last lines that the process wrote, for an error message."""
        return log_tail(self.log_path)

    def _signal_tree(self, number: signal.Signals) -> None:
        if not self.running:
            return
        family = descendants(self.pid)
        self.send_signal(number)
        for pid in family:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def server_environment(**extra: str) -> dict[str, str]:
    """Return the small environment that the servers get."""
    return {name: os.environ[name] for name in INHERITED_NAMES if name in os.environ} | extra


def log_tail(log_path: Path) -> str:
    """Return the last lines of a log file, or a remark when there is nothing to show."""
    try:
        with log_path.open("rb") as log:
            log.seek(max(0, log_path.stat().st_size - LOG_TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:]
    except OSError:
        lines = []
    return "\n".join(lines) or "(the log is empty)"


def descendants(pid: int) -> list[int]:
    """Return the process ids below this one, children before grandchildren; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    level = [pid]
    while level:
        level = [child for parent in level for child in children.get(parent, ())]
        found += level
    return found


def _parents() -> Iterable[tuple[int, int]]:
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command name stands in parentheses and may hold anything, so count from the last one.
            fields = status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        yield int(status.parent.name), int(fields[1])


def _rotate(log_path: Path) -> None:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if log_path.stat().st_size > LOG_BYTES_MAX:
            log_path.replace(log_path.with_name(f"{log_path.name}.1"))
