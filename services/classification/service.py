"""Wiring of classification: requests and human corrections in, one answer to each out.

Both topics are keyed by thread_id and worked in one loop, so one process owns a thread, and one order decides it. The
model runs before the transaction, in threads of its own: neither a row lock nor the heartbeat waits for it.
"""

import asyncio
import ctypes
import itertools
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final, TypeVar

import asyncpg

from services.classification import private, store
from services.classification.api import routes
from services.classification.desk import Desk, threads_with_late_replies
from services.classification.domain import OUTCOME_OF_LABEL, Verdict, chosen
from services.classification.model.classifier import Classifier, Prediction
from shared.events import ClassificationRequestedV1, EventData, OutcomeCorrectionRequestedV1
from shared.stream.effects import Effects
from shared.stream.processor import Read
from shared.stream.records import AnyIncoming, in_order_of_arrival
from shared.stream.service import Resources, ServiceSpec
from shared.topics import CLASSIFICATION_REQUESTS, OUTCOME_COMMANDS, OUTCOME_EVENTS

D = TypeVar("D", bound=EventData)

PREDICTIONS_KEPT_MAX: Final = 8_192
"""Predictions kept between `prepare` and `handle`; a batch that needs more computes the rest again."""

TEXTS_PER_TURN_MAX: Final = 64
"""Texts classified in one go in the executor: numpy holds the interpreter, and heartbeats must get their turn."""
TEXTS_PER_TURN_MIN: Final = 16
"""Fewer are not shared among threads: each turn costs about as much as one text's meaning, whatever it holds."""

_ARENAS: Final = -8
"""glibc's number for the option M_ARENA_MAX."""


class Outcomes:
    """Decides batches of requests and corrections."""

    def __init__(self, classifier: Classifier, *, text_days: int, threads: int) -> None:
        self._classifier = classifier
        self._text_days = text_days
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._predictions: OrderedDict[bytes, Prediction] = OrderedDict()

    async def prepare(self, batch: Sequence[AnyIncoming]) -> None:
        """Classify the batch's texts."""
        await self._predict(
            {request.text or "" for request in _of(ClassificationRequestedV1, batch) if not request.choice}
        )

    async def handle(self, tx: asyncpg.Connection, batch: Sequence[AnyIncoming], effects: Effects) -> None:
        """Answer the batch in the order of arrival and write what changed."""
        # A command comes after requests of its instant, by the topics' names: its author may have seen their answers.
        records = in_order_of_arrival(batch)
        requests = list(_of(ClassificationRequestedV1, records))
        verdicts = await self._verdicts(requests)
        desk = await load_desk(tx, requests, list(_of(OutcomeCorrectionRequestedV1, records)))
        for record in records:
            data = record.event.data
            event: EventData | None
            if isinstance(data, ClassificationRequestedV1):
                event = desk.answer(data, verdicts[data.reply_id])
                at = data.responded_at
            else:
                event = desk.correct(data)
                at = data.requested_at
            if event is None:
                effects.duplicate(record)
            else:
                effects.emit(OUTCOME_EVENTS, record, event, at=at)
        await store.save_threads(tx, {thread_id: desk.threads[thread_id] for thread_id in desk.changed})
        await store.save_replies(tx, desk.replies)
        await store.save_corrections(tx, desk.corrections)
        await private.save_names(tx, desk.named)
        if self._text_days:
            kept_until = datetime.now(UTC).date() + timedelta(days=self._text_days)
            await private.save_texts(tx, desk.texts, kept_until=kept_until)

    async def _verdicts(self, requests: Sequence[ClassificationRequestedV1]) -> dict[str, Verdict]:
        predictions = await self._predict({request.text or "" for request in requests if not request.choice})
        return {
            request.reply_id: chosen(request.choice) if request.choice else classified(predictions[request.text or ""])
            for request in requests
        }

    async def _predict(self, texts: Iterable[str]) -> dict[str, Prediction]:
        """Give the predictions of texts: those at hand, the others from the model, a few at a time."""
        loop = asyncio.get_running_loop()
        found: dict[str, Prediction] = {}
        missing: list[str] = []
        for text in sorted(texts):
            kept = self._predictions.get(_name_of(text))
            if kept is None:
                missing.append(text)
            else:
                found[text] = kept
        share = math.ceil(len(missing) / self._threads)
        size = min(max(share, TEXTS_PER_TURN_MIN), TEXTS_PER_TURN_MAX)
        turns = [missing[start : start + size] for start in range(0, len(missing), size)]
        made = await asyncio.gather(
            *(loop.run_in_executor(self._executor, self._classifier.classify, some) for some in turns)
        )
        for text, prediction in zip(missing, itertools.chain.from_iterable(made), strict=True):
            found[text] = self._predictions[_name_of(text)] = prediction
        while len(self._predictions) > PREDICTIONS_KEPT_MAX:
            self._predictions.popitem(last=False)
        return found


def classified(prediction: Prediction) -> Verdict:
    """R7: give a message the outcome that its label stands for."""
    return Verdict(
        outcome=OUTCOME_OF_LABEL[prediction.label],
        source="classifier",
        confidence=prediction.confidence,
        needs_confirmation=prediction.needs_confirmation,
        signals=prediction.signals,
        model_version=prediction.model_version,
    )


async def load_desk(
    tx: asyncpg.Connection,
    requests: Sequence[ClassificationRequestedV1],
    commands: Sequence[OutcomeCorrectionRequestedV1],
) -> Desk:
    """Read the rows that a batch concerns."""
    thread_ids = sorted({request.thread_id for request in requests} | {command.thread_id for command in commands})
    threads = await store.load_threads(tx, thread_ids)
    names = await private.load_names(tx, thread_ids)
    answered = await store.load_answered(tx, [request.reply_id for request in requests])
    late = threads_with_late_replies(requests, threads, answered)
    return Desk(threads, names, answered, await store.load_histories(tx, sorted(late)))


def _name_of(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _of(kind: type[D], batch: Iterable[AnyIncoming]) -> Iterator[D]:
    for record in batch:
        if isinstance(record.event.data, kind):
            yield record.event.data


def make_handler(resources: Resources) -> Outcomes:
    """Build the handler with the model loaded."""
    libc = ctypes.CDLL(None)
    in_glibc = hasattr(libc, "malloc_trim")
    if in_glibc:
        libc.mallopt(_ARENAS, 1)  # else each of the model's threads has memory of its own: 9 MB
    classifier = Classifier.load()
    if in_glibc:
        libc.malloc_trim(0)  # what loading took, 5 MB, would be kept
    settings = resources.settings
    return Outcomes(classifier, text_days=settings.classified_text_days, threads=settings.model_threads)


SPEC = ServiceSpec(
    name="classification",
    reads=(Read(CLASSIFICATION_REQUESTS, dedupe=False), Read(OUTCOME_COMMANDS, dedupe=True)),
    handler=make_handler,
    routes=routes,
    tidy=private.forget_texts,
)
