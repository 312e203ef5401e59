"""Where a running system is to be found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from deploy.local.system import LocalSystem
from shared.migrate import SCHEMA_OWNERS


@dataclass(frozen=True, slots=True)
class Target:
    """Addresses: `kafka` host:port, `postgres` a DSN that may read every schema, `services` base URLs by name."""

    kafka: str
    postgres: str
    services: Mapping[str, str]

    @classmethod
    def of(cls, system: LocalSystem) -> Self:
        """Take the addresses of a system that this process has started."""
        urls = {name: address.url for name, address in system.addresses.items()}
        return cls(system.stack.kafka_bootstrap, system.stack.postgres_dsn, urls)

    @property
    def schemas(self) -> list[str]:
        """The services that keep their position in a schema of their own."""
        return [name for name in SCHEMA_OWNERS if name in self.services]
