"""Topics on the broker, as the registry describes them."""

import asyncio
from collections.abc import Iterable

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from deploy.local.errors import StackError
from shared.topics import TOPICS, Topic

_VISIBLE_SECONDS_MAX = 15.0
_POLL_SECONDS = 0.1


class TopicMismatchError(StackError):
    """A topic exists with other partitions than the registry says; keys would change their partition."""


def broker_settings(topic: Topic) -> dict[str, str]:
    """The topic's configuration on the broker."""
    return {
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": topic.cleanup,
        "retention.ms": str(topic.retention_ms),
        "max.message.bytes": str(2 * topic.value_bytes_max),
    }


async def create_topics(bootstrap: str, *, replication: int = 1, topics: Iterable[Topic] | None = None) -> list[str]:
    """Create what is missing and return its names; what exists with the right partitions stays as it is.

    Raises:
        TopicMismatchError: a topic exists with another number of partitions.
        StackError: the broker does not show what it has.
        KafkaError: the broker is away or refuses.
    """
    wanted = list(TOPICS.values() if topics is None else topics)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="inmail-topics")
    try:
        await admin.start()
        response = await admin.create_topics(
            [NewTopic(t.name, t.partitions, replication, topic_configs=broker_settings(t)) for t in wanted]
        )
        codes = {name: code for name, code, *_ in response.topic_errors}
        for name, code in codes.items():
            if code and for_code(code) is not TopicAlreadyExistsError:
                raise for_code(code)(name)
        await _check_partitions(admin, wanted)
        return [name for name, code in codes.items() if not code]
    finally:
        await admin.close()


async def _check_partitions(admin: AIOKafkaAdminClient, topics: list[Topic]) -> None:
    """Wait until every topic is to be seen (the controller answers before the broker knows), and compare."""
    described: dict[str, int] = {}
    try:
        async with asyncio.timeout(_VISIBLE_SECONDS_MAX):
            while not all(described.get(topic.name) for topic in topics):
                await asyncio.sleep(_POLL_SECONDS if described else 0)
                found = await admin.describe_topics([t.name for t in topics])
                described = {d["topic"]: len(d["partitions"]) for d in found}
    except TimeoutError as error:
        unseen = ", ".join(topic.name for topic in topics if not described.get(topic.name))
        cause = f"Kafka does not show {unseen} after {_VISIBLE_SECONDS_MAX:.0f} s, though they are said to be there."
        raise StackError(cause, "give this user the right to describe topics, or look at the broker's log.") from error
    for topic in topics:
        if described[topic.name] != topic.partitions:
            cause = (
                f"{topic.name} has {described[topic.name]} partitions, not {topic.partitions}: a key would move to "
                "another partition and lose its order."
            )
            raise TopicMismatchError(cause, "use an empty broker, or create the topic anew.")
