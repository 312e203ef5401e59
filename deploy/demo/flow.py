"""What flows where, while it flows: a table on a terminal, lines elsewhere."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from deploy.verifier import Standing
from shared.topics import TOPICS, Topic

HISTORY: Final = 24
LOOK_SECONDS: Final = 0.25
LINE_SECONDS: Final = 2.0
_BARS: Final = " ▁▂▃▄▅▆▇█"
_DEAD_LETTERS: Final = "inmail.*.dead-letters"
_DONE: Final = "[green]done[/]"


@dataclass(slots=True)
class Flow:
    """Counts and rates by topic, from one look at the system to the next; `say` is given a line now and then."""

    title: str
    say: Callable[[str], None] | None = None
    began: float = field(default_factory=time.monotonic)
    stage: str = ""
    published: int = 0
    to_publish: int = 0
    seen: Standing = field(default_factory=Standing)
    finished: bool = False
    _counts: dict[str, int] = field(default_factory=dict)
    _rates: dict[str, deque[float]] = field(default_factory=dict)
    _looked_at: float = 0.0
    _said_at: float = 0.0

    def begin(self, stage: str, to_publish: int) -> None:
        """Say what is being published now."""
        self.stage, self.published, self.to_publish = stage, 0, to_publish

    def sent(self, published: int) -> None:
        """Say how much of it was."""
        self.published = published

    def look(self, seen: Standing) -> None:
        """Take a look into account."""
        now = time.monotonic()
        counts = _grouped(seen)
        passed = now - self._looked_at
        if self._counts and passed >= LOOK_SECONDS:
            for topic, count in counts.items():
                rates = self._rates.setdefault(topic, deque(maxlen=HISTORY))
                rates.append((count - self._counts[topic]) / passed)
        if not self._counts or passed >= LOOK_SECONDS:
            self._counts, self._looked_at = counts, now
        self.seen = seen
        if self.say is not None and now - self._said_at >= LINE_SECONDS:
            self.say(self.line)
            self._said_at = now

    @property
    def line(self) -> str:
        """The state in one line."""
        counts = _grouped(self.seen)
        flowing = " · ".join(f"{_short(topic)} {count:,}" for topic, count in counts.items() if count)
        unread = sum(self.seen.lag.values())
        return f"{time.monotonic() - self.began:5.1f} s  {self.stage}: {flowing or 'nothing yet'} · {unread:,} unread"

    def __rich__(self) -> RenderableType:
        return Group(self._head(), self._table())

    def _head(self) -> RenderableType:
        row = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(1, self.to_publish), completed=self.published, width=30)
        told = _DONE if self.finished else f"{self.published:,} of {self.to_publish:,} published"
        seconds = f"{time.monotonic() - self.began:.1f} s"
        row.add_row(Text(self.title, style="bold"), f"[cyan]{self.stage}[/]", bar, told, f"[dim]{seconds}[/]")
        return row

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        table.add_column("topic", no_wrap=True)
        table.add_column("written by → read by", no_wrap=True, style="dim")
        for name in ("records", "per second"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True, width=HISTORY, style="cyan")
        table.add_column("unread", justify="right", no_wrap=True)
        for topic, count in _grouped(self.seen).items():
            rates = self._rates.get(topic, deque())
            now = rates[-1] if rates and not self.finished else 0.0
            unread = self.seen.waiting(topic)
            table.add_row(
                Text(topic, style="" if count else "dim"),
                _way(topic),
                f"{count:,}" if count else "[dim]-[/]",
                f"{now:,.0f}" if now else "",
                sparkline(rates),
                f"[yellow]{unread:,}[/]" if unread else "",
            )
        return table


@contextmanager
def shown(flow: Flow, console: Console) -> Iterator[None]:
    """Draw the flow on a terminal while the context is open."""
    if not console.is_terminal:
        yield
        return
    with Live(flow, console=console, refresh_per_second=8):
        yield
        flow.finished = True


def sparkline(rates: "deque[float]") -> str:
    """Draw rates as bars, the highest full."""
    top = max(rates, default=0.0)
    if top <= 0:
        return ""
    steps = len(_BARS) - 1
    return "".join(_BARS[0 if rate <= 0 else max(1, round(rate / top * steps))] for rate in rates)


def _grouped(seen: Standing) -> dict[str, int]:
    """Records by topic, in the order of the registry, which is that of the flow; all dead letters as one."""
    counts = {name: seen.records.get(name, 0) for name, topic in TOPICS.items() if topic.types}
    counts[_DEAD_LETTERS] = sum(seen.records.get(name, 0) for name, topic in TOPICS.items() if not topic.types)
    return counts


def _way(name: str) -> str:
    topic: Topic | None = TOPICS.get(name)
    if topic is None:
        return "any service → operators"
    readers = [reader for reader in topic.readers if reader not in ("upstream", "downstream")] or ["downstream"]
    return f"{topic.writer} → {', '.join(readers) if len(readers) < 6 else 'all'}"


def _short(name: str) -> str:
    return name.removeprefix("inmail.").replace("*.", "")
