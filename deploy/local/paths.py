"""Where the stack keeps things: the per-user cache, free space, and which folders another account can reach."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

from deploy.local.errors import StackError

CACHE_NAME = "inmail-responses"
# Jars, the class archive and one stack's data fit in about 300 MiB; the rest is room for real traffic.
FREE_DISK_BYTES_MIN = 1024 * 1024 * 1024


def cache_dir() -> Path:
    """Return the per-user cache folder, which need not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / CACHE_NAME
    try:
        return Path.home() / ".cache" / CACHE_NAME
    except RuntimeError:  # no HOME and no passwd entry, as in some containers
        return Path(tempfile.gettempdir()) / f"{CACHE_NAME}-{os.geteuid()}"


def make_dir(path: Path, purpose: str) -> Path:
    """Create the folder, or say in plain words why it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(
            f"The folder {path} for {purpose} cannot be created: {error.strerror}.",
            "set XDG_CACHE_HOME (cache) or TMPDIR (data) to a folder that this user may write to.",
        ) from error
    return path


def free_bytes(path: Path) -> int:
    """Return the free space of the disk that holds the path or its nearest existing parent."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def require_free_disk(path: Path, bytes_min: int = FREE_DISK_BYTES_MIN) -> None:
    """Refuse to start on a disk that is nearly full: Kafka and Postgres die badly on one."""
    free = free_bytes(path)
    if free < bytes_min:
        raise StackError(
            f"The disk of {path} has {free // 2**20} MiB free; FREE_DISK_BYTES_MIN asks for {bytes_min // 2**20} MiB.",
            "free some space, or set TMPDIR and XDG_CACHE_HOME to a larger disk.",
        )


def reachable_by(path: Path, uid: int, gid: int) -> bool:
    """Tell whether the account may enter every folder on the way to the path and read the path itself."""
    path = path.resolve()
    return all(_allowed(parent, uid, gid, stat.S_IXOTH) for parent in path.parents) and _allowed(
        path, uid, gid, stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
    )


def _allowed(path: Path, uid: int, gid: int, other_bits: int) -> bool:
    status = path.stat()
    if status.st_uid == uid:
        wanted = other_bits << 6
    elif status.st_gid == gid:
        wanted = other_bits << 3
    else:
        wanted = other_bits
    return status.st_mode & wanted == wanted
