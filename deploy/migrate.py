"""`python -m deploy.migrate`: bring roles, schemas and tables up to date, as the administrator of the database.

INMAIL_POSTGRES_DSN names the database (PGPASSWORD may hold the password that it lacks), and <SERVICE>_PASSWORD gives
the role of each service its password. Running it again changes nothing but passwords.
"""

import asyncio
import os
import sys

import asyncpg

from deploy.local.variables import POSTGRES_VARIABLE
from shared.logging import setup_logging
from shared.migrate import SCHEMA_OWNERS, MigrationError, migrate


def password_variable(service: str) -> str:
    """The environment variable with the password of a service's role."""
    return f"{service.upper()}_PASSWORD"


def main() -> None:
    """Migrate; exit 1 with cause and cure when that fails."""
    setup_logging("migrate")
    needed = [POSTGRES_VARIABLE, *map(password_variable, SCHEMA_OWNERS)]
    missing = [name for name in needed if not os.environ.get(name)]
    if missing:
        sys.exit(f"{', '.join(missing)} not set. Cure: give them in the environment; they have no defaults.")
    passwords = {service: os.environ[password_variable(service)] for service in SCHEMA_OWNERS}
    try:
        asyncio.run(migrate(os.environ[POSTGRES_VARIABLE], passwords=passwords))
    except MigrationError as error:
        sys.exit(str(error))
    except (OSError, asyncpg.PostgresError) as error:
        sys.exit(
            f"{type(error).__name__}: {error}. Cure: see that {POSTGRES_VARIABLE} names an administrator's database."
        )


if __name__ == "__main__":
    main()
