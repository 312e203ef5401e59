"""The suite uses no server that its caller's environment names."""

import os
import subprocess
import sys
from pathlib import Path

from deploy.local.maven import REPOSITORY_VARIABLE
from deploy.local.variables import KAFKA_VARIABLE, POSTGRES_VARIABLE

CONFTEST = Path(__file__).parents[1] / "conftest.py"


def test_tests_see_no_server_of_their_caller() -> None:
    named = dict.fromkeys((KAFKA_VARIABLE, POSTGRES_VARIABLE, "INMAIL_LOG_LEVEL", REPOSITORY_VARIABLE), "named")
    program = f"""
import os, runpy
runpy.run_path({str(CONFTEST)!r})
print(*(name for name in os.environ if name.startswith("INMAIL_")))
"""
    seen = subprocess.check_output([sys.executable, "-c", program], env=os.environ | named, text=True)  # noqa: S603  ours
    assert seen.split() == [REPOSITORY_VARIABLE]
