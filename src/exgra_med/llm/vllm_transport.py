"""A local model inside this process through vLLM: no server, whole batches at a time."""

import asyncio
from typing import Any

from exgra_med.llm.request import ChatRequest, Reply, ReplyError
from exgra_med.plugins import import_extra

GATHER_SECONDS = 0.01
"""How long a batch waits for further requests before it starts."""


class VllmTransport:
    """Requests that wait together are answered as one batch.

    Args:
        model: a folder or a hub name, as vLLM takes it.

    Raises:
        MissingExtraError: vLLM is not installed.
    """

    def __init__(self, model: str, **arguments: Any) -> None:
        self._vllm = import_extra("vllm", "The engine vllm", "vllm")
        self._llm = self._vllm.LLM(model=model, **arguments)
        self._waiting: list[tuple[ChatRequest, asyncio.Future[Any]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def send(self, request: ChatRequest) -> Reply:
        """Ask once, together with whatever else waits.

        Raises:
            ReplyError: the reply is empty or was cut at the token limit.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        output = await future
        answer = output.outputs[0]
        ended = "length" if answer.finish_reason == "length" else "stop"
        if ended == "length" and not request.keep_cut:
            raise ReplyError("the reply ended early (length)")
        if not answer.text.strip() and not request.keep_cut:
            raise ReplyError("empty")
        tokens = len(output.prompt_token_ids), len(answer.token_ids)
        return Reply(answer.text, *tokens, 0.0, ended)

    async def close(self) -> None:
        """End the batch that waits, if one does."""
        if self._runner is not None:
            self._runner.cancel()

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_SECONDS)
            batch, self._waiting = self._waiting, []
            batch = [(request, future) for request, future in batch if not future.done()]
            try:
                outputs = await asyncio.to_thread(self._chat, [request for request, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), output in zip(batch, outputs, strict=True):
                if not future.done():
                    future.set_result(output)

    def _chat(self, requests: list[ChatRequest]) -> list[Any]:
        conversations = [[dict(message) for message in request.messages] for request in requests]
        sampling = [self._vllm.SamplingParams(**request.sampling.given()) for request in requests]
        return self._llm.chat(conversations, sampling, use_tqdm=False)
