"""What tests share: one real Kafka and one real Postgres for the whole run, started only when a test asks for them."""

from collections.abc import AsyncIterator

import pytest

from deploy.local.kafka import EmbeddedKafka
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.stack import LocalStack
from deploy.topics import create_topics
from shared.testing.databases import Databases
from shared.testing.topics import empty_topics


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[LocalStack]:
    async with LocalStack() as running:
        yield running


@pytest.fixture(scope="session")
def postgres(stack: LocalStack) -> EmbeddedPostgres:
    assert stack.postgres is not None, "unset INMAIL_POSTGRES_DSN: tests stop and kill the server they use"
    return stack.postgres


@pytest.fixture(scope="session")
def kafka(stack: LocalStack) -> EmbeddedKafka:
    assert stack.kafka is not None, "unset INMAIL_KAFKA_BOOTSTRAP: tests stop and kill the broker they use"
    return stack.kafka


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
