"""`POST /v1/classify`: what the model makes of texts. Nothing is kept."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.classification.model.classifier import Classifier
from shared.stream.service import Resources

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
TEXTS_MAX: Final = 1_000
TEXT_CHARS_MAX: Final = 256 * 1024
"""As long as an event can be."""

Text = Annotated[str, Field(max_length=TEXT_CHARS_MAX)]


class ClassifyRequest(BaseModel):
    """Texts to classify, answered in their order."""

    model_config = ConfigDict(strict=True, frozen=True)

    texts: Annotated[list[Text], Field(max_length=TEXTS_MAX)]


def routes(_: Resources) -> Sequence[Route]:
    """The paths that classification adds."""
    classifier = Classifier.load()

    async def classify(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                return problem(413, f"The body is larger than {BODY_BYTES_MAX} bytes: send fewer texts at once.")
        try:
            wanted = ClassifyRequest.model_validate_json(bytes(body))
        except ValidationError as error:
            details = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors())
            return problem(422, details)
        predictions = await run_in_threadpool(classifier.classify, wanted.texts)
        return JSONResponse({"results": [asdict(prediction) for prediction in predictions]})

    return [Route("/v1/classify", classify, methods=["POST"])]


def problem(status: int, detail: str) -> Response:
    """Answer an error by RFC 9457; `detail` names fields and never values."""
    titles = {413: "Content Too Large", 422: "Unprocessable Content"}
    body = {"type": "about:blank", "title": titles[status], "status": status, "detail": detail}
    return JSONResponse(body, status_code=status, media_type="application/problem+json")
