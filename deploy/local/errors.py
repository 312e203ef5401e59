"""The one error that the embedded stack raises at people: what happened, and what to do about it."""


class StackError(Exception):
    """Something of the local stack cannot start or has stopped; says the cause and the cure."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause} Cure: {cure}")
        self.cause = cause
        self.cure = cure
