"""Run the service: `python -m services.classification`."""

from services.classification.service import SPEC
from shared.stream.service import run

if __name__ == "__main__":
    run(SPEC)
