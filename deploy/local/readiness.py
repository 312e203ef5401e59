"""Ways to ask whether a child process is ready for work."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

HTTP_SECONDS_MAX = 2.0
HTTP_PORT = 80

# Called again and again; True means ready. OSError and TimeoutError count as not yet.
ReadinessProbe = Callable[[], Awaitable[bool]]


def http_ok(url: str) -> ReadinessProbe:
    """Return a probe that wants a 2xx answer to a GET of the address."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url} is no http:// address")
    host, port = parts.hostname, parts.port or HTTP_PORT
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    async def probe() -> bool:
        async with asyncio.timeout(HTTP_SECONDS_MAX):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                status_line = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        return status_line.partition(b" ")[2].startswith(b"2")

    return probe


async def is_ready(probe: ReadinessProbe) -> bool:
    """Ask once."""
    try:
        return await probe()
    except (OSError, TimeoutError):
        return False
