"""`POST /v1/classify`: what the model makes of texts. Nothing is kept."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.classification.model.classifier import Classifier
from shared.bodies import parsed_body
from shared.problems import answering
from shared.stream.service import Resources

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
TEXTS_MAX: Final = 1_000
TEXT_CHARS_MAX: Final = 256 * 1024
"""As long as an event can be."""
CURE: Final = f'Send {{"texts": ["...", ...]}}, at most {TEXTS_MAX} texts at once.'

Text = Annotated[str, Field(max_length=TEXT_CHARS_MAX)]


class ClassifyRequest(BaseModel):
    """Texts to classify, answered in their order."""

    model_config = ConfigDict(strict=True, frozen=True)

    texts: Annotated[list[Text], Field(max_length=TEXTS_MAX)]


def routes(_: Resources) -> Sequence[Route]:
    """The paths that classification adds."""
    classifier = Classifier.load()

    async def classify(request: Request) -> Response:
        wanted = await parsed_body(request, ClassifyRequest, bytes_max=BODY_BYTES_MAX, cure=CURE)
        predictions = await run_in_threadpool(classifier.classify, wanted.texts)
        return JSONResponse({"results": [asdict(prediction) for prediction in predictions]})

    return [Route("/v1/classify", answering(classify), methods=["POST"])]
