"""The verifier: reads topics, HTTP and the ledger from outside, and says in an account whether all of it is right.

It trusts none of the services and uses none of their code:

    expected = Expectation.of(scenario)
    observed = await observe(Target.of(system), as_of=scenario.until)
    lines = verify(expected, observed)
"""

from deploy.verifier.account import verify
from deploy.verifier.drain import Gauge, NotDrainedError, Standing, drained, standing
from deploy.verifier.line import Line
from deploy.verifier.observation import Observed, observe
from deploy.verifier.target import Target

__all__ = [
    "Gauge",
    "Line",
    "NotDrainedError",
    "Observed",
    "Standing",
    "Target",
    "drained",
    "observe",
    "standing",
    "verify",
]
