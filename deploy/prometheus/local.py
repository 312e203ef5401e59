"""`python -m deploy.prometheus.local [--port N]`: Prometheus beside the stack that `inmail up` has started.

Scrape settings and alerts are those of this folder; only the targets are those of the running stack.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from deploy.prometheus.tool import ToolMissingError, find

HERE = Path(__file__).parent
RUN = HERE.parents[1] / ".run"
CONFIGURATION = "prometheus.yml"
TARGETS = "targets.json"
SHARED = (CONFIGURATION, "alerts.yml")


def targets(services: Mapping[str, str]) -> list[dict[str, object]]:
    """Return Prometheus' targets for services given by name and base address."""
    return [{"targets": [urlsplit(url).netloc], "labels": {"service": name}} for name, url in services.items()]


def write(folder: Path, services: Mapping[str, str]) -> Path:
    """Write the configuration for `services` (name -> base address) into `folder`; return its main file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        shutil.copyfile(HERE / name, folder / name)
    (folder / TARGETS).write_text(json.dumps(targets(services), indent=2) + "\n", encoding="utf-8")
    return folder / CONFIGURATION


def command(folder: Path, port: int) -> list[str]:
    """Return the command line of a Prometheus that keeps its data below `folder` and answers on this machine only.

    Raises:
        ToolMissingError: Prometheus is not to be had.

    """
    return [
        str(find("prometheus")),
        f"--config.file={folder / CONFIGURATION}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]


def main() -> None:
    """Become a Prometheus for the stack described in .run/stack.json; exit 1 with cause and cure when that fails."""
    parser = argparse.ArgumentParser(prog="python -m deploy.prometheus.local", description=__doc__)
    parser.add_argument("--port", type=int, default=9090, help="where it answers [default: 9090]")
    port = parser.parse_args().port
    folder = RUN / "prometheus"
    try:
        services = json.loads((RUN / "stack.json").read_text(encoding="utf-8"))["services"]
        write(folder, services)
        line = command(folder, port)
    except FileNotFoundError:
        sys.exit("no stack is up here: run `inmail up` in another terminal first")
    except ToolMissingError as error:
        sys.exit(f"Prometheus: {error}")
    os.execv(line[0], line)  # noqa: S606  its whole purpose


if __name__ == "__main__":
    main()
