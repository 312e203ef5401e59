"""The environment variables that name servers of one's own; apart, so that commands know them without a local stack."""

KAFKA_VARIABLE = "INMAIL_KAFKA_BOOTSTRAP"
POSTGRES_VARIABLE = "INMAIL_POSTGRES_DSN"
