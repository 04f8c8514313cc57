"""One exchange with a service, whose every answer is bounded: in bytes, in numbers, in characters.

A service is another machine, so nothing that it sends is believed. Its bytes are counted while they
are unpacked and read on only as far as a limit; its figures are numbers that a request can have;
its text is whole characters. How long an exchange may take is the caller's: `asyncio.timeout`
around it, from connecting to the last byte.
"""

import json
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from exgra_med import __version__
from exgra_med.llm.endpoint import Endpoint
from exgra_med.llm.request import ReplyError, TransportError

MAX_REPLY_BYTES = 8 * 2**20
"""Of one answer, unpacked: the longest answers of models have some hundred kilobytes."""
MAX_REPLY_CHARACTERS = 1_000_000
"""Of the text in an answer, thoughts included; what reads it takes time and memory for each."""
MOST_TOKENS = 10_000_000
"""Of one request: more than any model can read. A larger count is no count."""
MOST_DOLLARS = 1000.0
"""Of one request: far above any. A larger cost is no cost."""

_BLOCK_BYTES = 2**16
_PACKED = ("gzip", "x-gzip", "deflate")


@dataclass(frozen=True)
class Answer:
    """An answer of which the head is there."""

    status: int
    headers: Mapping[str, str]
    blocks: AsyncIterator[bytes]
    """The body, unpacked, and never more of it than `MAX_REPLY_BYTES`."""

    @property
    def is_good(self) -> bool:
        """Whether the status says that this is what was asked for."""
        return 200 <= self.status < 300

    async def text(self) -> str:
        """The whole body. Bytes that are no UTF-8 stay apart, for `WholeCharacters`.

        Raises:
            ReplyError: it is too long.
            TransportError: the connection broke.
        """
        content = b"".join([block async for block in self.blocks])
        # Whatever the headers call it: JSON is UTF-8, and some names of encodings unpack.
        return content.decode("utf-8-sig", "surrogateescape")

    async def events(self) -> AsyncGenerator[Any, None]:
        """The JSON values of a stream of events, as they come; all else in it is skipped.

        Raises:
            ReplyError: it is too long.
            TransportError: the connection broke, or an event is no JSON.
        """
        left, data = bytearray(), []
        async for block in self.blocks:
            left += block
            # Looking only at what is new keeps an endless line from costing quadratic time.
            if b"\n" not in block and b"\r" not in block:
                continue
            *lines, rest = bytes(left).splitlines(keepends=True)
            if rest.endswith((b"\n", b"\r")):
                lines, rest = [*lines, rest], b""
            left = bytearray(rest)
            for line in lines:
                name, _, value = line.rstrip(b"\r\n").partition(b":")
                if name == b"data":
                    data.append(value.removeprefix(b" "))
                elif not name and not value and data:
                    said, data = b"\n".join(data), []
                    if said.startswith(b"[DONE]"):
                        return
                    yield _event(said)
        if data and not data[0].startswith(b"[DONE]"):
            yield _event(b"\n".join(data))


def _event(said: bytes) -> Any:
    try:
        return json.loads(said.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise TransportError("server", "an event of the stream is not JSON") from error


@asynccontextmanager
async def exchange(client: Any, endpoint: Endpoint, body: Mapping[str, Any]) -> AsyncIterator[Any]:
    """Send a request and give its `Answer`, of which only the head is read; closed in any case.

    Args:
        client: of `open_client`.

    Raises:
        TransportError: there is no connection, or it broke.
    """
    # Half a character in the data is no reason to lose the request.
    content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    query = f"?{endpoint.query}" if endpoint.query else ""
    request = client.build_request(
        "POST",
        f"{endpoint.base_url}/chat/completions{query}",
        content=content,
        headers={
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if body.get("stream") else "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"exgra-med/{__version__}",
            # Azure reads a key in a header of its own; in the usual one it expects another kind.
            **(
                {"api-key": endpoint.api_key}
                if endpoint.is_azure
                else {"Authorization": f"Bearer {endpoint.api_key}"}
            ),
        },
    )
    try:
        response = await client.send(request, stream=True)
    # The client raises errors of several packages; to a run they are one: no answer came.
    except Exception as error:
        raise _broken(error) from error
    try:
        async with aclosing(_blocks(response)) as blocks:
            yield Answer(response.status_code, response.headers, blocks)
    finally:
        await response.aclose()


def open_client(kind: Any, endpoint: Endpoint) -> Any:
    """A client of HTTP that goes to this endpoint and nowhere else.

    Redirects are not followed and, for a local address, no proxy is used: what was allowed to go
    to one machine goes to no other.

    Args:
        kind: the class, as the openai SDK has it.
    """
    return kind(
        follow_redirects=False,
        trust_env=not endpoint.is_local,
        # Reading the certificates costs 50 ms; plain http has none.
        verify=endpoint.base_url.startswith("https:"),
        # A timeout of the client begins anew with every byte; the caller's does not.
        timeout=None,
    )


async def _blocks(response: Any) -> AsyncGenerator[bytes, None]:
    """The body of a response, unpacked and counted."""
    packed = response.headers.get("content-encoding", "").strip().lower()
    if packed not in ("", "identity", *_PACKED):
        raise TransportError("server", "the answer is packed in a way that was not asked for")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed in _PACKED else None
    size = 0
    try:
        async for block in response.aiter_raw():
            while block:
                size += len(block)
                if unpack is None:
                    part, block = block, b""
                else:
                    part = unpack.decompress(block, _BLOCK_BYTES)
                    size, block = size - len(block) + len(part), unpack.unconsumed_tail
                if size > MAX_REPLY_BYTES:
                    raise ReplyError(f"the answer is longer than {MAX_REPLY_BYTES} bytes")
                yield part
    except (ReplyError, TransportError):
        raise
    except Exception as error:
        raise _broken(error) from error


def _broken(error: Exception) -> TransportError:
    hint = "Check the address, and that the server runs."
    return TransportError("connection", type(error).__name__, hint=hint)


def count(value: Any, otherwise: int) -> int:
    """A number of tokens that a service sent, where it is one.

    >>> count(5, 9), count(-1000, 9), count(10**20, 9), count(float("nan"), 9), count(True, 9)
    (5, 9, 9, 9, 9)
    """
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and 0 <= value <= MOST_TOKENS else otherwise


def dollars(value: Any) -> float | None:
    """A cost that a service sent, where it is one: it gives no money back.

    >>> dollars(0.5), dollars(-1), dollars(10**400), dollars(float("nan")), dollars("1")
    (0.5, None, None, None, None)
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= MOST_DOLLARS else None


_BYTE = "\udc80-\udcff"
_HALF = re.compile(f"[\ud800-\udbff]\\Z|[{_BYTE}]{{1,3}}\\Z")
_LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class WholeCharacters:
    """Text that comes in pieces, as whole characters.

    A piece may end within a character: in a surrogate, or in a byte that `surrogateescape` kept.
    Halves that meet are joined; one that stays alone becomes U+FFFD.

    >>> whole = WholeCharacters()
    >>> whole.add("a\\ud83d"), whole.add("\\ude00b"), whole.add("\\udce2\\udc82"), whole.end()
    ('a', '😀b', '', '\ufffd')
    """

    def __init__(self) -> None:
        self._half = ""

    def add(self, text: str) -> str:
        """The whole characters up to the end of a further piece."""
        text = self._half + text
        if text.isascii():
            return text
        half = _HALF.search(text)
        self._half = half[0] if half else ""
        return _whole(text[: len(text) - len(self._half)])

    def end(self) -> str:
        """What is left when no further piece comes."""
        half, self._half = self._half, ""
        return _whole(half)


def whole_characters(text: str) -> str:
    """A whole text without halves of characters; see `WholeCharacters`."""
    return text if text.isascii() else _whole(text)


def _whole(text: str) -> str:
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    kept = _LONE.sub("\ufffd", joined).encode("utf-8", "surrogateescape")
    return kept.decode("utf-8", "replace")
