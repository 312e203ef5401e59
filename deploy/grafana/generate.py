"""`python -m deploy.grafana.generate [--check]`: write, or check, the dashboards that Grafana loads."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.flow import flow
from deploy.grafana.ledger import ledger
from deploy.grafana.services import services

DASHBOARDS: Final = Path(__file__).parent / "dashboards"


def generated() -> dict[str, str]:
    """Return the text of every dashboard by its file name."""
    files = {}
    for builder in (flow(), services(), ledger()):
        built = builder.build()
        files[f"{built.uid}.json"] = json.dumps(built, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
    return files


def stale(directory: Path = DASHBOARDS) -> list[str]:
    """Return the names of files that are missing, differ, or should not be there."""
    wanted = generated()
    stored = {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*.json")}
    return sorted(name for name in wanted.keys() | stored.keys() if wanted.get(name) != stored.get(name))


def main(arguments: Sequence[str] | None = None, directory: Path = DASHBOARDS) -> int:
    """Run the command; return 0, or 1 where a file is stale."""
    parser = argparse.ArgumentParser(prog="python -m deploy.grafana.generate", description="Grafana's dashboards.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is out of date")
    if parser.parse_args(arguments).check:
        names = stale(directory)
        sys.stderr.writelines(f"out of date: {name}; run python -m deploy.grafana.generate\n" for name in names)
        return 1 if names else 0
    directory.mkdir(exist_ok=True)
    for name, text in generated().items():
        (directory / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
