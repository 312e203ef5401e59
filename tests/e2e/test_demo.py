"""`inmail demo` as a stranger runs it, and its verifier, which must see what is missing and what is twice."""

import asyncio
import copy
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from deploy.demo.play import Played, play
from deploy.local.paths import CACHE_NAME
from deploy.local.stack import LocalStack
from deploy.local.system import ROOT, LocalSystem
from deploy.traffic.scenario import Scenario
from deploy.verifier import Observed, Target, verify
from shared.testing.processes import none_left
from shared.topics import CREDIT_EVENTS, NOTIFICATION_REQUESTS, OUTCOME_EVENTS, THREAD_STATES

INMAILS = 150
SECONDS_MAX = 240


async def test_the_demo_holds_and_leaves_nothing_behind(folder: Path) -> None:
    async with none_left():
        demo = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli", "demo", "--json", "--inmails", str(INMAILS), "--seed", "3"),
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(folder)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(demo.communicate(), SECONDS_MAX)
        finally:
            if demo.returncode is None:
                demo.kill()
                await demo.wait()
    assert output, errors.decode()
    told = json.loads(output)
    assert [line for line in told["account"] if not line["ok"]] == []
    assert (demo.returncode, told["ok"], len(told["stories"])) == (0, True, 6)
    # As root, a copy of Postgres' programs may stay for the next start.
    left = {path.name for path in folder.iterdir()}  # noqa: ASYNC240  a look at a small folder
    assert {name for name in left if not name.startswith(f"{CACHE_NAME}-postgres-")} == set()


@pytest.fixture(scope="module")
async def played() -> AsyncIterator[Played]:
    async with LocalSystem(LocalStack(environ={})) as system:
        scenario = Scenario.make(seed=4, inmails=INMAILS, until=datetime.now(UTC).replace(microsecond=0))
        with open(os.devnull, "w") as nowhere:  # noqa: ASYNC230, PTH123  nothing is read or written there
            yield await play(Target.of(system), scenario, Console(file=nowhere), title="test", records_per_second=None)


def lose(topic: str) -> Callable[[Observed], object]:
    return lambda observed: observed.derived[topic].pop()


def lose_a_state(observed: Observed) -> None:
    """A thread's last state, as often as it was sent: what may have been overtaken is sent again in another event."""
    states = observed.derived[THREAD_STATES]
    observed.derived[THREAD_STATES] = [state for state in states if state.data != states[-1].data]


def double(topic: str) -> Callable[[Observed], object]:
    return lambda observed: observed.derived[topic].append(observed.derived[topic][-1])


def misplace_a_credit(observed: Observed) -> None:
    next(iter(observed.books.postings.values()))["available"] += 1


def forget_a_dead_letter(observed: Observed) -> None:
    observed.dead.pop()


@pytest.mark.parametrize(
    "spoil",
    [
        lose(OUTCOME_EVENTS),
        lose(NOTIFICATION_REQUESTS),
        lose(CREDIT_EVENTS),
        lose_a_state,
        double(OUTCOME_EVENTS),
        double(NOTIFICATION_REQUESTS),
        double(CREDIT_EVENTS),
        misplace_a_credit,
        forget_a_dead_letter,
    ],
)
async def test_the_verifier_sees_what_is_wrong(played: Played, spoil: Callable[[Observed], object]) -> None:
    assert played.holds
    spoiled = copy.deepcopy(played.observed)
    spoil(spoiled)
    assert not all(line.holds for line in verify(played.expected, spoiled))
