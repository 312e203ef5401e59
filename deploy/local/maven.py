"""Maven artefacts through jgo, which needs no Maven and no JDK on the machine."""

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import requests
from jgo.config import GlobalSettings
from jgo.maven import MavenContext

from deploy.local.errors import StackError

REPOSITORY_VARIABLE = "INMAIL_MAVEN_REPOSITORY"
REQUEST_SECONDS_MAX = 30
TRIES_MAX = 3
BACKOFF_SECONDS = 0.5
_SETTINGS = Path(".m2") / "settings.xml"
_CENTRAL = "central"


def resolve(endpoints: Sequence[str], work_dir: Path) -> list[str]:
    """Return ``group:artifact:version`` of the endpoints and all that they need at run time, in classpath order."""
    context = _context(work_dir)
    inputs, transitive = context.resolver.resolve([context.create_dependency(endpoint) for endpoint in endpoints])
    needed = [*inputs, *(dependency for dependency in transitive if dependency.scope in {"compile", "runtime"})]
    return [f"{one.groupId}:{one.artifactId}:{one.version}" for one in needed]


def download(coordinate: str, work_dir: Path) -> Path:
    """Download one jar below ``work_dir`` and return its path; a network error is tried again a few times."""
    group, artifact_id, version = coordinate.split(":")
    artifact = _context(work_dir).project(group, artifact_id).at_version(version).artifact()
    for attempt in range(1, TRIES_MAX + 1):
        try:
            return Path(artifact.resolve())
        except requests.RequestException as error:
            if artifact.cached_path:  # half a file would pass for a whole one at the next try
                artifact.cached_path.unlink(missing_ok=True)
            if attempt == TRIES_MAX:
                raise unreachable(coordinate, error) from error
            time.sleep(BACKOFF_SECONDS * 2**attempt)
        except RuntimeError as error:  # jgo's word for: no repository has it
            raise unreachable(coordinate, error) from error
    raise AssertionError("the loop returns or raises")


def unreachable(coordinate: str, error: Exception) -> StackError:
    """Say that the artefact could not be had, and what helps."""
    return StackError(
        f"{coordinate} could not be downloaded ({type(error).__name__}: {str(error)[:200]}).",
        f"connect to the network for the first start; where only a mirror is reachable, name it in ~/{_SETTINGS} or in "
        f"{REPOSITORY_VARIABLE}. Or use a Kafka of your own: INMAIL_KAFKA_BOOTSTRAP=host:port.",
    )


def _context(work_dir: Path) -> MavenContext:
    return MavenContext(repo_cache=work_dir, remote_repos=_repositories(), timeout=REQUEST_SECONDS_MAX)


def _repositories() -> dict[str, str] | None:
    """Return the repositories to ask, in order: ours by name, Maven's mirror, jgo's own settings; None is Central."""
    named = os.environ.get(REPOSITORY_VARIABLE)
    if named:
        return {_CENTRAL: named.rstrip("/")}
    mirror = _mirror_of_central(Path.home() / _SETTINGS)
    if mirror:
        return {_CENTRAL: mirror.rstrip("/")}
    return GlobalSettings.load().repositories or None


def _mirror_of_central(settings: Path) -> str | None:
    """Return the address that Maven's settings put in the place of Central, if any."""
    try:
        root = ElementTree.parse(settings).getroot()  # noqa: S314 - the user's own settings, as Maven reads them
    except (OSError, ElementTree.ParseError):
        return None
    for mirror in root.iterfind("./{*}mirrors/{*}mirror"):
        url = (mirror.findtext("{*}url") or "").strip()
        blocked = (mirror.findtext("{*}blocked") or "").strip() == "true"
        if url and not blocked and _covers_central(mirror.findtext("{*}mirrorOf") or ""):
            return re.sub(r"\$\{env\.(\w+)}", lambda match: os.environ.get(match[1], ""), url)
    return None


def _covers_central(mirror_of: str) -> bool:
    patterns = {pattern.strip() for pattern in mirror_of.split(",")}
    return f"!{_CENTRAL}" not in patterns and bool(patterns & {"*", "external:*", _CENTRAL})
