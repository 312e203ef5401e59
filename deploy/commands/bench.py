"""`inmail bench`: measure, show ratios, and write `.run/bench.json`."""

import asyncio
import json
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from deploy.bench import hop, pipeline
from deploy.commands.terminal import output
from deploy.local.stack import LocalStack
from deploy.local.system import ROOT, LocalSystem

RESULT = ROOT / ".run" / "bench.json"
_COUNT = click.IntRange(1)


@click.command()
@click.option("--part", type=click.Choice(["all", "hop", "pipeline"]), default="all", help="Measure only one part.")
@click.option("--rounds", type=_COUNT, default=3, show_default=True, help="How often each contender of the hop runs.")
@click.option("--replies", type=_COUNT, default=30_000, show_default=True, help="Replies of the pipeline's run.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(*, part: str, rounds: int, replies: int, as_json: bool) -> None:
    """Measure the ingestion hop beside other ways to do it, then the whole pipeline.

    All on this machine, one after the other, on fresh servers with the same durability. Figures of machines that
    others use at the same time move a lot: look at the ratios.
    """
    console = Console(stderr=True)
    result = asyncio.run(_measure(part, hop.Sizes(rounds=rounds), pipeline.Sizes(replies=replies), console))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(result))
        return
    _show(result)
    click.echo(f"written to {RESULT.relative_to(ROOT)}")


async def _measure(part: str, hop_sizes: hop.Sizes, sizes: pipeline.Sizes, console: Console) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if part in ("all", "hop"):
        async with LocalStack() as stack:
            rates = await hop.measure(stack, hop_sizes, console.print)
        result["hop"] = {name: round(median(values), 1) for name, values in rates.items()}
    if part in ("all", "pipeline"):
        async with LocalSystem(LocalStack()) as system:
            measured = await pipeline.measure(system, sizes, console.print)
        result["pipeline"] = {"replies_per_s": round(measured.replies_per_s, 1)}
        result["latency_ms"] = {name: round(value, 1) for name, value in measured.latency_ms.items()}
        result["memory_mb"] = dict(measured.memory_mb)
    return result


def _show(result: dict[str, Any]) -> None:
    console = output()
    if "hop" in result:
        table = Table(
            "ingestion hop", "events/s", "ours is", title="All guarantees on, beside other ways", title_justify="left"
        )
        ours = result["hop"]["ours"]
        for name, rate in sorted(result["hop"].items(), key=lambda item: -item[1]):
            table.add_row(name, f"{rate:,.0f}", f"{ours / rate:.2f} x")
        console.print(table)
    if "pipeline" in result:
        console.print(f"pipeline, all services: {result['pipeline']['replies_per_s']:,.0f} replies/s sustained")
        latency = result["latency_ms"]
        console.print(f"reply to notification: p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms")
        table = Table("process", "peak MB")
        for name, megabytes in result["memory_mb"].items():
            table.add_row(name, f"{megabytes:.0f}")
        console.print(table)
