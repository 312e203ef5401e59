"""The system account that Postgres runs as when we are root, which it refuses to be."""

import os
import pwd
from dataclasses import dataclass

from deploy.local.errors import StackError

# initdb looks its user up by name, so the account must exist. These do nearly everywhere, and none may log in.
CANDIDATES = ("postgres", "nobody", "daemon")


@dataclass(frozen=True, slots=True)
class Account:
    """A user and group of this machine."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """Return whom to become for Postgres: None when we are an ordinary user already."""
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise StackError(
        f"Postgres refuses to run as root, and this machine has none of the users {', '.join(CANDIDATES)}.",
        "run as an ordinary user, or create the user `nobody`.",
    )
