"""A chat-completions server on this machine that misbehaves on purpose.

Each request that arrives takes the next fault of a plan (or none); what arrived and what was
answered well is counted by question, so that a test can tell a request that was paid twice.
"""

import asyncio
import json
import random
import sys
import threading
from collections import Counter

FAULTS = (
    "rate limit",
    "server error",
    "hang",
    "cut",
    "invalid JSON",
    "prose",
    "empty revision",
    "wrong type",
    "no choices",
)


def completion(content: object, **extra: object) -> bytes:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    return json.dumps({"id": "x", "choices": [choice], "usage": usage} | extra).encode()


def revision_for(user: str) -> str:
    pair = json.loads(user)
    return f"In short: {pair['answer']}. Asked was: {pair['instruction']}"


class BadServer:
    def __init__(self, share=0.0, latency=0.0, seed=0, faults=FAULTS, delay=0.0, knows_schema=True):
        self.share, self.latency, self.faults, self.delay = share, latency, faults, delay
        self.knows_schema = knows_schema
        self.random = random.Random(seed)
        self.requests: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.bodies: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.replies: list[object] = []
        self.peak = self.now = 0
        self.ready = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self):
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.thread.start()
        self.ready.wait(10)
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(10)

    async def _serve(self):
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        if self.delay:
            server.close()
            self.ready.set()
            await asyncio.sleep(self.delay)
            server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        self.ready.set()
        await self.stop.wait()
        server.close()

    async def _connection(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lines = head.split("\r\n")[1:]
                headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.now += 1
                self.peak = max(self.peak, self.now)
                try:
                    keep = await self._answer(body, headers, writer)
                finally:
                    self.now -= 1
                await writer.drain()
                if not keep:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, body, headers, writer) -> bool:
        user = body["messages"][-1]["content"]
        self.requests[user] += 1
        if len(self.bodies) < 1000:
            self.bodies.append(body)
            self.headers.append(headers)
        if self.latency:
            await asyncio.sleep(self.latency)
        if "response_format" in body and not self.knows_schema:
            return self._send(writer, 400, b'{"error": {"message": "response_format unknown"}}')
        if self.replies:
            reply = self.replies.pop(0)
            if isinstance(reply, int):
                return self._send(writer, reply, b'{"error": {"message": "x"}}')
            if isinstance(reply, bytes):
                return self._send(writer, 200, reply)
            return self._send(writer, 200, completion(reply))
        fault = self.random.choice(self.faults) if self.random.random() < self.share else ""
        good = json.dumps({"explanation": {}, "revision": revision_for(user)})
        if fault == "rate limit":
            return self._send(writer, 429, b"{}", "retry-after: 0.05\r\n")
        if fault == "server error":
            return self._send(writer, 500, b"oh no")
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "cut":
            writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{"choices": [')
            await writer.drain()
            writer.transport.abort()
            return False
        if fault == "no choices":
            return self._send(writer, 200, b'{"choices": []}')
        bad = {
            "invalid JSON": '{"revision": "cut',
            "prose": "I would say it is fine.",
            "empty revision": '{"revision": "  "}',
            "wrong type": '{"revision": 5}',
        }
        if fault:
            return self._send(writer, 200, completion(bad[fault]))
        self.answered[user] += 1
        return self._send(writer, 200, completion(good))

    def _send(self, writer, status, body, extra="") -> bool:
        self.statuses[status] += 1
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{extra}"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        return True


if __name__ == "__main__":
    with BadServer(latency=float(sys.argv[1])) as server:
        print(server.url, flush=True)
        sys.stdin.read()
