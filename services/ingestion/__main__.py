"""`python -m services.ingestion` runs the service."""

from services.ingestion.service import SPEC
from shared.stream.service import run

run(SPEC)
