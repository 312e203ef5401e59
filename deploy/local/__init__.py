"""The embedded stack: Kafka and Postgres on this machine from wheels and Maven artefacts, without containers.

Start with ``stack.LocalStack``; ``kafka.EmbeddedKafka``, ``postgres.EmbeddedPostgres`` and ``supervisor.Supervisor``
are its parts, each of use alone.
"""
