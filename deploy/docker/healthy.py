"""`python -m deploy.docker.healthy PATH`: ask the service in this container; exit 0 when it answers 200, else 1."""

import http.client
import os
import sys

SECONDS_MAX = 4.0


def main(path: str) -> int:
    """Ask, and repeat the answer where `docker inspect` shows it: it names what the service waits for."""
    # Not urllib: it would send the question to a proxy that the environment names.
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["INMAIL_HTTP_PORT"]), timeout=SECONDS_MAX)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        sys.stdout.write(answer.read().decode())
    except OSError as error:
        sys.stdout.write(f"{type(error).__name__}: {error}")
        return 1
    finally:
        connection.close()
    return int(answer.status != http.HTTPStatus.OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
