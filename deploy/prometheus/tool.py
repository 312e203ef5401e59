"""`python -m deploy.prometheus.tool ARGUMENTS`: promtool, from PATH or from Debian's package.

Debian's package `prometheus` holds `prometheus` and `promtool`. It is fetched by name with apt, unpacked into the
user's cache and not installed: that needs no root and changes nothing on the machine.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from deploy.local.paths import cache_dir

PACKAGE = "prometheus"
FETCH_SECONDS_MAX = 120.0


class ToolMissingError(Exception):
    """The program is neither on PATH nor to be had; says why."""


@cache
def find(program: str) -> Path:
    """Return the path of `promtool` or `prometheus`, fetching the package at the first call on this machine.

    Raises:
        ToolMissingError: there is none on PATH, and apt or its package archive is not to be had.

    """
    installed = shutil.which(program)
    if installed is not None:
        return Path(installed)
    unpacked = cache_dir() / "debian" / PACKAGE
    if not (unpacked / "usr" / "bin" / program).exists():
        _fetch(unpacked)
    return unpacked / "usr" / "bin" / program


def _fetch(target: Path) -> None:
    """Unpack the package to `target`, which appears whole or not at all."""
    missing = [name for name in ("apt-get", "dpkg") if shutil.which(name) is None]
    if missing:
        raise ToolMissingError(f"no {PACKAGE} on PATH, and no {' and '.join(missing)} to fetch Debian's package with")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        _run(["apt-get", "download", PACKAGE], folder)
        (package,) = folder.glob("*.deb")
        _run(["dpkg", "-x", str(package), "unpacked"], folder)
        try:
            (folder / "unpacked").rename(target)
        except OSError:
            if not target.exists():  # otherwise another process was faster, with the same package
                raise


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(  # noqa: S603  fixed commands
            command, cwd=folder, check=True, capture_output=True, text=True, timeout=FETCH_SECONDS_MAX
        )
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines()[-1:] or [f"status {error.returncode}"]
        raise ToolMissingError(f"`{' '.join(command)}` failed: {reason[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolMissingError(f"`{' '.join(command)}` took more than {FETCH_SECONDS_MAX:.0f} s") from error


def main() -> None:
    """Become promtool with the arguments given; exit 1 with the reason when there is none."""
    try:
        promtool = find("promtool")
    except ToolMissingError as error:
        sys.exit(f"promtool: {error}")
    os.execv(promtool, [str(promtool), *sys.argv[1:]])  # noqa: S606  its whole purpose


if __name__ == "__main__":
    main()
