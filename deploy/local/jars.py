"""Kafka's jars: which ones (``jars.lock``), where they are kept, and proof that they are the ones we tested.

``python -m deploy.local.jars lock`` resolves them anew and rewrites the lock; ``fetch`` fills the cache.
"""

import asyncio
import fcntl
import hashlib
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local import maven
from deploy.local.errors import StackError
from deploy.local.paths import cache_dir, make_dir
from deploy.local.progress import ProgressCallback, ProgressEvent, silent

KAFKA_VERSION = "4.4.0"
SLF4J_VERSION = "2.0.17"  # must be that of the slf4j-api that Kafka brings
ENDPOINTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", f"org.slf4j:slf4j-simple:{SLF4J_VERSION}")
LOCK = Path(__file__).with_name("jars.lock")
DOWNLOADS_AT_ONCE_MAX = 8
WHAT = "Downloading Kafka"
_HEADER = "# Written by `python -m deploy.local.jars lock`, checked at every start: coordinate, bytes, sha256.\n"


@dataclass(frozen=True, slots=True)
class LockedJar:
    """One line of the lock."""

    coordinate: str
    size_bytes: int
    sha256: str

    @property
    def filename(self) -> str:
        """The jar's name in the cache."""
        _, artifact_id, version = self.coordinate.split(":")
        return f"{artifact_id}-{version}.jar"


def read_lock(lock: Path = LOCK) -> list[LockedJar]:
    """Return the locked jars in classpath order."""
    rows = [line.split() for line in lock.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    jars = [LockedJar(coordinate, int(size), sha256) for coordinate, size, sha256 in rows]
    missing = set(ENDPOINTS) - {jar.coordinate for jar in jars}
    if missing:
        raise StackError(
            f"{lock.name} does not hold {', '.join(sorted(missing))}.",
            "run `python -m deploy.local.jars lock` and commit the file.",
        )
    return jars


def jars_dir() -> Path:
    """Return the folder of the cached jars, which need not exist yet."""
    return cache_dir() / "jars"


def missing_jars(jars: Sequence[LockedJar], folder: Path) -> list[LockedJar]:
    """Return the jars that are not in the folder as locked: absent, cut short or changed."""
    return [jar for jar in jars if not _matches(jar, folder / jar.filename)]


async def ensure_jars(progress: ProgressCallback = silent) -> list[Path]:
    """Return the classpath, downloading what the cache lacks; without anything to download it needs no network."""
    loop = asyncio.get_running_loop()
    cancelled = threading.Event()

    def report(event: ProgressEvent) -> None:
        loop.call_soon_threadsafe(progress, event)

    try:
        return await asyncio.to_thread(_ensure, report, cancelled)
    finally:
        cancelled.set()


def write_lock(lock: Path = LOCK) -> list[LockedJar]:
    """Resolve the endpoints anew and write the lock; the cache is filled on the way."""
    with _alone(make_dir(jars_dir(), "Kafka's jars")) as folder, _staging(folder) as staging:
        coordinates = maven.resolve(ENDPOINTS, staging)
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE_MAX) as pool:
            paths = list(pool.map(lambda coordinate: maven.download(coordinate, staging), coordinates))
        jars = [
            LockedJar(coordinate, path.stat().st_size, _sha256(path))
            for coordinate, path in zip(coordinates, paths, strict=True)
        ]
        for jar, path in zip(jars, paths, strict=True):
            path.replace(folder / jar.filename)
    lock.write_text(
        _HEADER + "".join(f"{jar.coordinate} {jar.size_bytes} {jar.sha256}\n" for jar in jars), encoding="utf-8"
    )
    return jars


def _ensure(report: ProgressCallback, cancelled: threading.Event) -> list[Path]:
    jars, folder = read_lock(), jars_dir()
    if missing_jars(jars, folder):
        with _alone(make_dir(folder, "Kafka's jars")), _staging(folder) as staging:
            # Looked at again under the lock: another process may have downloaded them while we waited.
            _fetch(missing_jars(jars, folder), folder, staging, report, cancelled)
    return [folder / jar.filename for jar in jars]


def _fetch(
    jars: Sequence[LockedJar], folder: Path, staging: Path, report: ProgressCallback, cancelled: threading.Event
) -> None:
    tally = _tally(sum(jar.size_bytes for jar in jars), report)

    def fetch(jar: LockedJar) -> None:
        if cancelled.is_set():
            return
        path = maven.download(jar.coordinate, staging)
        if not _matches(jar, path):
            raise StackError(
                f"{jar.coordinate} as downloaded has sha256 {_sha256(path)}; {LOCK.name} says {jar.sha256}.",
                "ask whoever runs the Maven mirror why the file differs; do not use it.",
            )
        path.replace(folder / jar.filename)
        tally(jar.size_bytes)

    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE_MAX) as pool:
        try:
            list(pool.map(fetch, jars))
        except BaseException:
            cancelled.set()  # the jars that wait their turn need not be tried
            raise


def _tally(total_bytes: int, report: ProgressCallback) -> Callable[[int], None]:
    """Return a function that adds up what several threads have done and reports the sum."""
    done_bytes = 0
    guard = threading.Lock()

    def add(size_bytes: int) -> None:
        nonlocal done_bytes
        with guard:
            done_bytes += size_bytes
            report(ProgressEvent(WHAT, done_bytes, total_bytes, "bytes"))

    return add


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Let one process at a time write to the folder; the system lets go of the lock when the process dies."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """Give an empty folder on the same disk, so that a checked jar can be moved into place in one step."""
    staging = folder / ".staging"
    shutil.rmtree(staging, ignore_errors=True)  # a killed process may have left half a download
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _matches(jar: LockedJar, path: Path) -> bool:
    try:
        return path.stat().st_size == jar.size_bytes and _sha256(path) == jar.sha256
    except FileNotFoundError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str]) -> int:
    """Run ``lock`` or ``fetch``."""
    match arguments:
        case ["lock"]:
            jars = write_lock()
        case ["fetch"]:
            asyncio.run(ensure_jars())
            jars = read_lock()
        case _:
            sys.stderr.write("usage: python -m deploy.local.jars lock|fetch\n")
            return 2
    sys.stdout.write(f"{len(jars)} jars, {sum(jar.size_bytes for jar in jars) / 2**20:.0f} MiB, in {jars_dir()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
