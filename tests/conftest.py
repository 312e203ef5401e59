"""What tests share: one real Kafka and one real Postgres for the whole run, started only when a test asks for them."""

from collections.abc import AsyncIterator

import pytest

from deploy.local.kafka import EmbeddedKafka
from deploy.local.postgres import EmbeddedPostgres
from deploy.topics import create_topics
from shared.testing.databases import Databases
from shared.testing.topics import empty_topics


@pytest.fixture(scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedPostgres]:
    async with EmbeddedPostgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server
    server.remove_data()


@pytest.fixture(scope="session")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedKafka]:
    async with EmbeddedKafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


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
