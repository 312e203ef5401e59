"""The inbox's problems: what it says of a thing that is not known, and of a parameter that cannot be read."""

from collections.abc import Iterable

from shared.problems import ProblemError


def not_found(what: str, name: str) -> ProblemError:
    """Nothing is known under an id; `what` is a word such as `thread`."""
    return ProblemError(
        404,
        f"unknown-{what.lower()}",
        f"Unknown {what}",
        detail=f"Nothing is known of the {what} {name!r}.",
        cure="Check the id and its percent-encoding. What was published a moment ago may take a moment to be seen.",
    )


def unknown_folder(name: str, names: Iterable[str]) -> ProblemError:
    """There is no such folder; `names` are those that there are."""
    return ProblemError(
        404,
        "unknown-folder",
        "Unknown folder",
        detail=f"There is no folder {name!r}.",
        cure=f"Name one of {', '.join(names)}.",
    )


def bad_parameter(name: str, wrong: str, cure: str) -> ProblemError:
    """A parameter of the path or the query cannot be read."""
    return ProblemError(
        400, "bad-parameter", "Bad parameter", detail=f"{name}: {wrong}.", cure=cure, extra={"parameter": name}
    )
