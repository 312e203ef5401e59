"""Run the service: `python -m services.inbox`."""

from services.inbox.service import SPEC
from shared.stream.service import run

if __name__ == "__main__":
    run(SPEC)
