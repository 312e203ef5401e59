"""Run the service: `python -m services.credits`."""

from services.credits.service import SPEC
from shared.stream.service import run

if __name__ == "__main__":
    run(SPEC)
