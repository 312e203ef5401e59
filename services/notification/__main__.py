"""Run the service: `python -m services.notification`."""

from services.notification.service import SPEC
from shared.stream.service import run

if __name__ == "__main__":
    run(SPEC)
