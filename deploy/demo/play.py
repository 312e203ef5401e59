"""Plays a scenario through a running system and looks at what came of it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console

from deploy.demo.flow import LOOK_SECONDS, Flow, shown
from deploy.traffic.expectation import Expectation
from deploy.traffic.publisher import publish
from deploy.traffic.scenario import Scenario
from deploy.verifier import Gauge, Line, Observed, Target, observe, verify

REST_SECONDS_MAX: Final = 90.0


@dataclass(slots=True)
class Played:
    """A scenario that was played: what was seen, the account of it, and how long each part took."""

    scenario: Scenario
    expected: Expectation
    observed: Observed
    account: list[Line]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every line does."""
        return all(line.holds for line in self.account)


async def play(
    target: Target, scenario: Scenario, console: Console, *, title: str, records_per_second: float | None
) -> Played:
    """Publish wave after wave, each when the one before has come to rest; then look and compare.

    Raises:
        NotDrainedError: the services did not come to rest.
    """
    began = time.monotonic()
    flow = Flow(title, say=None if console.is_terminal else console.print)
    async with Gauge(target) as gauge:
        with shown(flow, console):
            for wave in scenario.waves:
                flow.begin(wave.name, len(wave.records))
                async with _watching(gauge, flow):
                    await publish(
                        target.kafka, wave.records, records_per_second=records_per_second, published=flow.sent
                    )
                await gauge.rest(seconds_max=REST_SECONDS_MAX, seen=flow.look)
    played = time.monotonic()
    observed = await observe(target, as_of=scenario.until)
    looked = time.monotonic()
    expected = Expectation.of(scenario)
    account = verify(expected, observed)
    seconds = {"played": played - began, "looked": looked - played, "compared": time.monotonic() - looked}
    return Played(scenario, expected, observed, account, seconds)


@contextlib.asynccontextmanager
async def _watching(gauge: Gauge, flow: Flow) -> AsyncIterator[None]:
    """Look again and again while the context is open."""
    over = asyncio.Event()
    watching = asyncio.create_task(_watch(gauge, flow, over))
    try:
        yield
    finally:
        over.set()
        await watching


async def _watch(gauge: Gauge, flow: Flow, over: asyncio.Event) -> None:
    while not over.is_set():
        flow.look(await gauge.look())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), LOOK_SECONDS)
