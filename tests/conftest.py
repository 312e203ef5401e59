"""What tests share: one real Kafka and one real Postgres for the whole run, started only when a test asks for them."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deploy.local.kafka import EmbeddedKafka
from deploy.local.maven import REPOSITORY_VARIABLE
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.stack import LocalStack
from deploy.local.variables import KAFKA_VARIABLE, POSTGRES_VARIABLE
from deploy.topics import create_topics
from shared.testing.databases import Databases
from shared.testing.topics import empty_topics

TOGETHER = ("e2e", "faults", "integration")
"""Each of these folders is worked by one process, as its tests share servers or want a machine's strength."""

# README tells users to export the addresses of their own servers: tests would empty topics and kill what runs there.
for _name in [name for name in os.environ if name.startswith("INMAIL_") and name != REPOSITORY_VARIABLE]:
    del os.environ[_name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes work the suite (pytest-xdist)."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(folder))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that another account may pass through; pytest's own are closed, which another test covers."""
    path = Path(tempfile.mkdtemp(prefix="inmail-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


# Each server alone: a test that needs no broker does not wait for one. Naming a server as external leaves it out.


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[EmbeddedPostgres]:
    async with LocalStack(environ={KAFKA_VARIABLE: "none"}) as stack:
        assert stack.postgres is not None
        yield stack.postgres


@pytest.fixture(scope="session")
async def kafka() -> AsyncIterator[EmbeddedKafka]:
    async with LocalStack(environ={POSTGRES_VARIABLE: "none"}) as stack:
        assert stack.kafka is not None
        yield stack.kafka


@pytest.fixture(scope="session")
def databases(postgres: EmbeddedPostgres) -> Databases:
    return Databases(postgres.dsn)


@pytest.fixture
async def database(databases: Databases) -> AsyncIterator[str]:
    """The administrator's DSN of a fresh database with all migrations applied."""
    dsn = await databases.create()
    yield dsn
    await databases.drop(dsn)


@pytest.fixture
async def broker(kafka: EmbeddedKafka) -> str:
    """The bootstrap address of a broker that has every topic, and no record that can still be read."""
    await create_topics(kafka.bootstrap)
    await empty_topics(kafka.bootstrap)
    return kafka.bootstrap
