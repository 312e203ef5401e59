"""Ties a command to the life of the process that started it, then becomes that command.

Run as ``python -I -S guard.py PARENT_PID DEATH_SIGNAL UID GID COMMAND...`` (UID and GID -1: stay who you are). It runs
in the child, after the fork, so the parent needs no ``preexec_fn``, which is not safe with threads. It imports nothing
of this project: it must start in milliseconds and work as any user.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
EXIT_PARENT_GONE = 125
EXIT_CANNOT_RUN = 127


def main(arguments: list[str]) -> int:
    """Detach from the terminal, drop rights, ask to die with the parent, and run the command."""
    parent_pid, death_signal, uid, gid = (int(argument) for argument in arguments[:4])
    command = arguments[4:]
    # Own session: Ctrl-C in a terminal reaches only the parent, which then stops its children in order.
    os.setsid()
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After setuid: a change of credentials clears it. On other systems an orphan lives until its next stop.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before we asked
        return EXIT_PARENT_GONE
    try:
        os.execvp(command[0], command)  # noqa: S606 - the purpose of this file; no shell is wanted
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
    return EXIT_CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
