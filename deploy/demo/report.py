"""The report at the end of a demo: stories, a folder, the dead letters and the account; or all of it as JSON."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.demo.play import Played
from deploy.demo.stories import Told, told
from deploy.traffic.records import Leaning
from deploy.verifier import Line
from deploy.verifier.observation import DeadLetter
from shared.events import format_instant
from shared.topics import OUTCOME_EVENTS

FOLDER_ROWS_MAX: Final = 8
WIDTH_MAX: Final = 132
_DAYS: Final = 90
_EXAMPLE_CHARACTERS_MAX: Final = 44
_LABELS: Final[dict[Leaning, str]] = {"accept": "accepted", "decline": "declined"}
_STYLES: Final = {"recruiter": "blue", "candidate": "magenta", "system": "dim"}


def show(played: Played, console: Console) -> None:
    """Print the report."""
    width = min(console.width, WIDTH_MAX)
    for part in _parts(played):
        console.print(part, width=width)
        console.print()
    console.print(_verdict(played), width=width, highlight=False)


def document(played: Played) -> dict[str, Any]:
    """Give the report for programs."""
    seat_id, items = _folder(played)
    return {
        "ok": played.holds,
        "seed": played.scenario.seed,
        "until": format_instant(played.scenario.until),
        "seconds": {name: round(seconds, 3) for name, seconds in played.seconds.items()},
        "records": {topic: count for topic, count in played.observed.standing.records.items() if count},
        "account": [
            {"name": line.name, "ok": line.holds, "expected": line.expected, "actual": line.actual}
            for line in played.account
        ],
        "awaiting_reply": {"seat_id": seat_id, "threads": len(items), "items": items[:FOLDER_ROWS_MAX]},
        "dead_letters": dict(Counter(letter.reason for letter in played.observed.dead)),
        "own_words": _read(played),
        "stories": [
            {"title": t.title, "thread_id": t.thread_id, "sentences": [_spoken(s) for s in t.sentences]}
            for t in told(played)
        ],
    }


def _spoken(sentence: Any) -> dict[str, str]:
    return {"when": sentence.when, "who": sentence.who, "what": sentence.what}


def _parts(played: Played) -> Iterator[RenderableType]:
    for story in told(played):
        yield _story(story)
    yield _folder_table(played)
    yield _dead_letters(played)
    yield _reading(played)
    yield _account(played.account)


# Stories


def _story(story: Told) -> Panel:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    for sentence in story.sentences:
        style = _STYLES[sentence.who]
        if sentence.who == "system":
            grid.add_row("", "", Padding(Text(f"→ {sentence.what}", style=style), (0, 0, 0, 2)))
        else:
            grid.add_row(sentence.when, Text(sentence.name, style=f"bold {style}"), Text(sentence.what))
    title = Text(story.title, style="bold")
    return Panel(grid, title=title, title_align="left", subtitle=f"[dim]{story.thread_id}[/]", subtitle_align="right")


# One recruiter's folder


def _folder(played: Played) -> tuple[str, list[dict[str, Any]]]:
    """Take the fullest awaiting-reply folder."""
    folders = played.observed.answers.awaiting
    return max(folders.items(), key=lambda entry: (len(entry[1]), entry[0]), default=("", []))


def _folder_table(played: Played) -> RenderableType:
    seat_id, items = _folder(played)
    table = _table(f"Awaiting reply, as {seat_id} sees it")
    for name in ("candidate", "last InMail", "age", "credit window", ""):
        table.add_column(name, no_wrap=True, justify="right" if name == "age" else "left")
    half = FOLDER_ROWS_MAX // 2
    shown = items if len(items) <= FOLDER_ROWS_MAX else items[:half] + items[-half:]
    for place, item in enumerate(shown):
        if place == half and len(items) > FOLDER_ROWS_MAX:
            table.add_row(f"[dim]... {len(items) - FOLDER_ROWS_MAX} more[/]")
        left = item["days_left"]
        bar = "█" * round(left / _DAYS * 12)
        window = f"[yellow]{bar:<12}[/] {left} days" if left else "[red]lapsed[/]"
        age = f"{item['age_seconds'] // 86_400} days"
        table.add_row(
            item["candidate"]["name"], item["last_inmail_at"][:10], age, window, f"[dim]{item['thread_id']}[/]"
        )
    return table


# Dead letters


def _dead_letters(played: Played) -> RenderableType:
    table = _table("Dead letters")
    # What must not wrap is never made narrower while there are columns that may.
    for name in ("reason", "count", "from"):
        table.add_column(name, no_wrap=True, justify="right" if name == "count" else "left")
    for name in ("for example", "which began"):
        table.add_column(name, overflow="fold")
    counts = Counter(letter.reason for letter in played.observed.dead)
    examples = {letter.reason: letter for letter in reversed(played.observed.dead)}
    for reason, count in counts.most_common():
        letter = examples[reason]
        topic, partition, offset = letter.origin
        where = f"{topic.removeprefix('inmail.')} {partition}/{offset}"
        table.add_row(f"[red]{reason}[/]", str(count), where, letter.detail, Text(_beginning(letter), style="dim"))
    return table


def _beginning(letter: DeadLetter) -> str:
    if letter.value is None:
        return "null"
    text = letter.value[:_EXAMPLE_CHARACTERS_MAX].decode(errors="backslashreplace")
    return f"{text} ... ({len(letter.value):,} bytes)" if len(letter.value) > len(text) else text


# What the model made of own words


def _read(played: Played) -> dict[str, int]:
    """Count first replies in own words: those with a clear meaning, those read as meant, those to be confirmed."""
    leanings = {r.id: r.leaning for t in played.expected.threads.values() for r in t.replies if r.choice is None}
    first = [
        event.data
        for event in played.observed.of_type(OUTCOME_EVENTS, "outcome.decided.v1")
        if event.data["source"] == "classifier" and "previous" not in event.data
    ]
    clear = [data for data in first if leanings.get(data["reply_id"]) in _LABELS]
    meant = [data for data in clear if data["outcome"] == _LABELS[leanings[data["reply_id"]] or "accept"]]
    unsure = [data for data in first if data["needs_confirmation"]]
    return {"texts": len(first), "clear": len(clear), "read_as_meant": len(meant), "to_be_confirmed": len(unsure)}


def _reading(played: Played) -> RenderableType:
    found = _read(played)
    share = found["read_as_meant"] / max(1, found["clear"])
    return Text.assemble(
        ("Own words  ", "bold"),
        f"{found['texts']:,} first replies without a choice: of {found['clear']:,} with a clear meaning, {share:.1%} "
        f"were read as their authors meant them; {found['to_be_confirmed']:,} are to be confirmed by a human.",
    )


# The account


def _account(lines: list[Line]) -> RenderableType:
    table = _table("The account, from topics, HTTP and the ledger")
    table.add_column("", no_wrap=True)
    table.add_column("what must hold")
    table.add_column("what was seen", style="dim")
    for line in lines:
        seen: RenderableType = Text(line.actual)
        if not line.holds:
            seen = Group(Text(line.actual, style="red"), Text(f"expected: {line.expected}", style="yellow"))
        table.add_row("[bold green]ok[/]" if line.holds else "[bold red]FAILED[/]", line.name, seen)
    return table


def _verdict(played: Played) -> str:
    held = sum(line.holds for line in played.account)
    style = "bold green" if played.holds else "bold red"
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in played.seconds.items())
    records = sum(played.observed.standing.records.values())
    inmails = sum(1 for _ in played.expected.inmails)
    return (
        f"[{style}]{held} of {len(played.account)} lines hold[/] "
        f"for {inmails:,} InMails and {records:,} records, seed {played.scenario.seed} [dim]({parts})[/]"
    )


def _table(title: str) -> Table:
    return Table(title=f"[bold]{title}[/]", title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim")
