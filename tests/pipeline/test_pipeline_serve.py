"""`exgra-med serve` for real: a process, asked by the openai client."""

import base64
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from exgra_med.data.chat_template import encode_prompt
from exgra_med.data.records import Turn
from exgra_med.evaluation.engines import message_parts
from exgra_med.model.bundle import Bundle, save_bundle
from exgra_med.model.convert.original import import_original
from exgra_med.model.generate import generate

pytestmark = pytest.mark.slow
DATA = Path(__file__).parents[1] / "golden" / "data" / "model"
PICTURE = DATA / "images" / "square.png"
QUESTION = "Which side is affected?"
START_SECONDS = 120


def asked(bundle: Bundle, max_new_tokens: int) -> Any:
    prompt = encode_prompt(bundle.tokenizer, [Turn(role="user", text=QUESTION)], "exgra", 16, 1)
    return generate(bundle, [prompt], [[Image.open(PICTURE)]], max_new_tokens)[0]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A model that writes a few tokens and then `###`."""
    bundle = import_original(DATA / "checkpoint_dci", DATA / "clip_tiny").bundle
    # Random bytes are no text.
    bundle.model.lm_head.weight.data[3:259] = 0
    written = asked(bundle, 24).token_ids
    place = next(i for i in range(4, 24) if written[i] not in written[:i])
    stop = bundle.tokenizer("a\n###")["input_ids"][-1]
    rows = bundle.model.lm_head.weight.data
    rows[[written[place], stop]] = rows[[stop, written[place]]].clone()
    assert asked(bundle, 24).finish_reason == "stop"
    return bundle


@pytest.fixture(scope="module")
def client(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("uvicorn")
    openai = pytest.importorskip("openai")
    folder = tmp_path_factory.mktemp("served") / "native"
    save_bundle(bundle, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = str(Path(__file__).parents[2] / "src")
    paths = [source, *(path for path in sys.path if path)]
    options = f"--port {port} --server transformers".split()
    process = subprocess.Popen(
        [sys.executable, "-m", "exgra_med", "serve", str(folder), *options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,
    )
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    client.folder = "native"
    try:
        wait_until_open(port, process)
        yield client
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def wait_until_open(port: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError("the server did not open its port")


def messages(url: str) -> list[dict[str, Any]]:
    content = [
        {"type": "text", "text": QUESTION},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    return [{"role": "user", "content": content}]


def picture_url() -> str:
    return "data:image/png;base64," + base64.b64encode(PICTURE.read_bytes()).decode()


def test_the_answer_equals_our_own_and_stops_at_the_end_marker(client: Any, bundle: Bundle) -> None:
    reply = client.chat.completions.create(
        model=client.folder, messages=messages(picture_url()), max_tokens=24, temperature=0
    )
    ours = asked(bundle, 24)
    assert reply.choices[0].message.content.split("###")[0].strip() == ours.text
    assert reply.choices[0].finish_reason == "stop"


def test_streaming_gives_the_same(client: Any, bundle: Bundle) -> None:
    pieces = client.chat.completions.create(
        model=client.folder, messages=messages(picture_url()), max_tokens=24, stream=True
    )
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text.split("###")[0].strip() == asked(bundle, 24).text


@pytest.mark.parametrize(
    "question",
    ["Which changed?", "Is <image> older than <image>?", "<image><image>\nWhich is larger?"],
)
def test_several_pictures_stand_where_the_question_places_them(
    client: Any, bundle: Bundle, question: str
) -> None:
    pictures = [Image.open(DATA / "images" / f"{name}.png") for name in ("wide", "square")]
    prompt = encode_prompt(bundle.tokenizer, [Turn(role="user", text=question)], "exgra", 16, 2)
    ours = generate(bundle, [prompt], [pictures], 24)[0]
    content: Any = message_parts(question, pictures)
    reply = client.chat.completions.create(
        model=client.folder,
        messages=[{"role": "user", "content": content}],
        max_tokens=24,
        temperature=0,
    )
    assert reply.choices[0].message.content.split("###")[0].strip() == ours.text
    assert reply.usage.prompt_tokens == len(prompt)


def test_a_picture_that_is_no_base64_is_refused_and_not_fetched(client: Any) -> None:
    import openai

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(3)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
        for each in (url, str(PICTURE), f"file://{PICTURE}", "data:text/html;base64,PGI+"):
            with pytest.raises(openai.BadRequestError, match="data:image/png;base64"):
                client.chat.completions.create(
                    model=client.folder, messages=messages(each), max_tokens=2
                )
        with pytest.raises(TimeoutError):
            listener.accept()


def test_the_model_has_a_short_name(client: Any) -> None:
    import openai

    assert [each.id for each in client.models.list()] == ["native"]
    assert client.models.retrieve("native").id == "native"
    with pytest.raises(openai.NotFoundError, match="The model here is 'native'"):
        client.chat.completions.create(model="other", messages=messages(picture_url()))


@pytest.mark.parametrize("streams", [False, True])
def test_an_answer_ends_at_a_stop_string(client: Any, streams: bool) -> None:
    def asked_with(**more: Any) -> tuple[str, str | None]:
        got = client.chat.completions.create(
            model="native", messages=messages(picture_url()), max_tokens=24, temperature=0,
            stream=streams, **more,
        )  # fmt: skip
        if not streams:
            assert got.model == "native"
            return got.choices[0].message.content, got.choices[0].finish_reason
        choices = [each.choices[0] for each in got if each.choices]
        return "".join(each.delta.content or "" for each in choices), choices[-1].finish_reason

    whole, _ = asked_with()
    stop = whole[3:5]
    assert asked_with(stop=stop) == (whole[: whole.index(stop)], "stop")
    assert asked_with(stop=["never", stop])[0] == whole[: whole.index(stop)]
    assert asked_with(stop="never")[0] == whole


def test_the_port_is_open_to_this_machine_alone(client: Any) -> None:
    port = client.base_url.port
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [line.split()[1] for line in lines if line.split()[3] == "0A"]
    addresses = {each.split(":")[0] for each in listening if int(each.split(":")[1], 16) == port}
    assert addresses == {"0100007F"}
