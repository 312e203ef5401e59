"""Routes whose parts may hold any character: ids are percent-encoded, so a path is taken apart before it is decoded."""

from typing import Final, cast
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from services.inbox.problems import bad_parameter
from shared.problems import Endpoint, answering, method_not_allowed, unknown_path

_ID_CHARACTERS_MAX: Final = 128
_ID_CURE: Final = "Give an id of 1 to 128 characters as percent-encoded UTF-8."


class EncodedRoute(Route):
    """A route that matches the path as it was sent and gives its decoded parameters to the endpoint."""

    def __init__(self, path: str, endpoint: Endpoint, *, method: str) -> None:
        super().__init__(path, answering(endpoint), methods=[method])

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match on the raw path, where an encoded slash is no separator. No path has two routes, so it alone counts."""
        raw = scope.get("raw_path")
        if raw is not None:
            scope = {**scope, "path": raw.decode("latin-1"), "root_path": ""}
        match, child = super().matches(scope)
        return (Match.NONE if match is Match.NONE else Match.FULL), child

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with a problem where the path does not know the method."""
        if scope["method"] not in (self.methods or ()):
            allowed = ", ".join(sorted(self.methods or ()))
            await method_not_allowed(scope["method"], allowed).response()(scope, receive, send)
        else:
            await super().handle(scope, receive, send)


def anything_else(path: str) -> Route:
    """A route for whatever no other route knows."""

    async def answer(_: Request) -> Response:
        raise unknown_path()

    route = Route(path, answering(answer), include_in_schema=False)
    route.methods = None  # any: no method makes the path known
    return route


def path_id(request: Request, name: str) -> str:
    """Give an id out of the path.

    Raises:
        ProblemError: it is no id.

    """
    try:
        decoded = unquote_to_bytes(cast("str", request.path_params[name])).decode()
    except UnicodeDecodeError:
        raise bad_parameter(name, "is not UTF-8", _ID_CURE) from None
    if not 1 <= len(decoded) <= _ID_CHARACTERS_MAX:
        raise bad_parameter(name, f"has {len(decoded)} characters", _ID_CURE)
    if "\0" in decoded:
        raise bad_parameter(name, "holds a NUL character", _ID_CURE)
    return decoded
