"""Keeps child processes running: starts them, restarts them when they die, stops them in reverse order."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.process import ChildProcess, log_tail
from deploy.local.readiness import ReadinessProbe, http_ok, is_ready

READY_POLL_SECONDS = 0.05

_log = logging.getLogger(__name__)


class State(StrEnum):
    """Where a child is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"  # died, will be started again after the back-off
    STOPPED = "stopped"  # by us, on purpose
    FAILED = "failed"  # died too often, or could not start


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How often a child that dies is started again, and how long to wait before."""

    restarts_max: int = 5
    window_seconds: float = 60.0
    backoff_seconds_first: float = 0.2
    backoff_seconds_max: float = 10.0

    def backoff_seconds(self, restarts: int) -> float:
        """Return the wait before the next start after so many restarts within the window."""
        return float(min(self.backoff_seconds_max, self.backoff_seconds_first * 2**restarts))


NEVER_RESTART = RestartPolicy(restarts_max=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What to run and how to tell that it works. ``env`` is added to our own environment."""

    name: str
    command: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    ready: ReadinessProbe | str | None = None  # a string is an http:// address that must answer 2xx
    ready_seconds_max: float = 30.0
    stop_seconds_max: float = 10.0
    restart: RestartPolicy = field(default_factory=RestartPolicy)

    def probe(self) -> ReadinessProbe | None:
        """Return the readiness probe, if there is one."""
        return http_ok(self.ready) if isinstance(self.ready, str) else self.ready


@dataclass(frozen=True, slots=True)
class ChildFailure:
    """A child that will not be started again."""

    name: str
    error: StackError


class Child:
    """One supervised process over all its restarts."""

    def __init__(self, spec: ChildSpec, log_path: Path) -> None:
        self.spec = spec
        self.log_path = log_path
        self.state = State.STOPPED
        self.restarts_total = 0
        self._process: ChildProcess | None = None
        self._peak_rss_bytes = 0

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self._process.running else None

    @property
    def returncode(self) -> int | None:
        """The exit status of the last process that ended; None while one runs."""
        return self._process.returncode if self._process is not None else None

    @property
    def peak_rss_bytes(self) -> int:
        """The most memory that any of its processes had resident."""
        if self._process is not None:
            self._peak_rss_bytes = max(self._peak_rss_bytes, self._process.peak_rss_bytes())
        return self._peak_rss_bytes

    async def run_once(self) -> None:
        """Start a process and wait until it is ready; raises with its last words when it dies or stays unready."""
        self.state = State.STARTING
        self._process = await ChildProcess.start(
            self.spec.command, log_path=self.log_path, env={**os.environ, **self.spec.env}, cwd=self.spec.cwd
        )
        try:
            async with asyncio.timeout(self.spec.ready_seconds_max):
                await self._wait_until_ready(self._process)
        except TimeoutError as error:
            await self._process.kill()
            raise self.error(f"was not ready in ready_seconds_max={self.spec.ready_seconds_max:g} s") from error
        except BaseException:
            await self._process.kill()
            raise
        self.state = State.RUNNING

    async def wait(self) -> int:
        """Wait until the present process ends."""
        return await self.process.wait()

    @property
    def process(self) -> ChildProcess:
        """The present process, or the last one."""
        if self._process is None:
            raise RuntimeError(f"{self.spec.name} was not started")
        return self._process

    def error(self, how: str) -> StackError:
        """Say how the child failed, with the end of its log."""
        return StackError(
            f"{self.spec.name} {how}:\n{log_tail(self.log_path)}",
            f"read {self.log_path}, mend what it names and start again.",
        )

    async def _wait_until_ready(self, process: ChildProcess) -> None:
        probe = self.spec.probe()
        while process.running:
            if probe is None or await is_ready(probe):
                return
            await asyncio.sleep(READY_POLL_SECONDS)
        raise self.error(f"ended with status {process.returncode} before it was ready")


class Supervisor:
    """A set of children with one life: none outlives ``stop()``, nor this process, however it ends."""

    def __init__(self, log_dir: Path) -> None:
        self.log_dir = log_dir
        self._children: dict[str, Child] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._failures: asyncio.Queue[ChildFailure] = asyncio.Queue()

    @property
    def children(self) -> Mapping[str, Child]:
        """All children by name, in the order of their start."""
        return self._children

    async def start(self, spec: ChildSpec) -> Child:
        """Start a child and return once it is ready. Several may be started at the same time."""
        if spec.name in self._children:
            raise ValueError(f"there is a child named {spec.name}")
        child = self._children[spec.name] = Child(spec, self.log_dir / f"{spec.name}.log")
        await self._launch(child)
        return child

    async def start_again(self, name: str) -> Child:
        """Start a child that was stopped, held or has failed."""
        child = self._children[name]
        if name not in self._keepers:
            await self._launch(child)
        return child

    async def stop_child(self, name: str) -> int | None:
        """Stop one child cleanly and leave it stopped; return its exit status."""
        child = self._children[name]
        await self._dismiss_keeper(child)
        if child.pid is not None:
            await child.process.stop(deadline_seconds=child.spec.stop_seconds_max)
        child.state = State.STOPPED
        return child.returncode

    async def kill(self, name: str, *, hold: bool = False) -> None:
        """Kill a child without warning; it is started again by its policy, or, with ``hold``, by ``start_again``."""
        child = self._children[name]
        if hold:
            await self._dismiss_keeper(child)
            child.state = State.STOPPED
        if child.pid is not None:
            await child.process.kill()

    def pause(self, name: str) -> None:
        """Freeze a child (SIGSTOP): it lives, holds its connections and does nothing."""
        self._children[name].process.pause()

    def resume(self, name: str) -> None:
        """Let a frozen child run on."""
        self._children[name].process.resume()

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """Send a child any other signal."""
        self._children[name].process.send_signal(number)

    async def wait_failed(self) -> ChildFailure:
        """Return the next child that has died too often to be started again."""
        return await self._failures.get()

    async def stop(self) -> None:
        """Stop all children, the last started first; each has its own deadline before it is killed."""
        for name in reversed(list(self._children)):
            await self.stop_child(name)

    async def _launch(self, child: Child) -> None:
        try:
            await child.run_once()
        except StackError:
            child.state = State.FAILED
            raise
        except BaseException:
            child.state = State.STOPPED
            raise
        self._keepers[child.spec.name] = asyncio.create_task(self._keep(child), name=f"keep {child.spec.name}")

    async def _keep(self, child: Child) -> None:
        """Start the child again each time it dies, until that happens too often."""
        policy = child.spec.restart
        restarts: deque[float] = deque()
        error: StackError | None = None
        while True:
            if error is None:
                error = child.error(f"ended with status {await child.wait()}")
            while restarts and restarts[0] < time.monotonic() - policy.window_seconds:
                restarts.popleft()
            if len(restarts) >= policy.restarts_max:
                self._give_up(child, error)
                return
            child.state = State.WAITING
            delay_seconds = policy.backoff_seconds(len(restarts))
            _log.warning("%s; starting it again in %.1f s", error.cause.splitlines()[0], delay_seconds)
            await asyncio.sleep(delay_seconds)
            restarts.append(time.monotonic())
            child.restarts_total += 1
            try:
                await child.run_once()
                error = None
            except StackError as failed:
                error = failed

    def _give_up(self, child: Child, error: StackError) -> None:
        child.state = State.FAILED
        del self._keepers[child.spec.name]
        policy = child.spec.restart
        reason = f"{error.cause}\nrestarts_max={policy.restarts_max} within {policy.window_seconds:g} s is used up."
        self._failures.put_nowait(ChildFailure(child.spec.name, StackError(reason, error.cure)))

    async def _dismiss_keeper(self, child: Child) -> None:
        keeper = self._keepers.pop(child.spec.name, None)
        if keeper is not None:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
