"""`exgra-med chat`: ask a model in the terminal."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exgra_med.cli.options import Device, Json, ModelArgument, OptionalTemplate, device_for
from exgra_med.errors import DataError
from exgra_med.terminal import printable

if TYPE_CHECKING:
    from exgra_med.model.assistant import Conversation

EXAMPLE = """Examples:

* `exgra-med chat runs/demo/checkpoints/vqa/final image.png "Is there a fracture?"`

* `exgra-med chat runs/demo/checkpoints/vqa/final --image old.png --image new.png "What is new?"`
"""


def chat(
    model: ModelArgument,
    image: Annotated[
        Path | None, typer.Argument(metavar="IMAGE", help="A picture. Leave it out for text.")
    ] = None,
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="Leave it out for a dialogue.")
    ] = None,
    more: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="IMAGE", help="A picture; give it again for several."),
    ] = None,
    device: Device = "auto",
    template: OptionalTemplate = None,
    as_json: Json = False,
) -> None:
    """Ask about pictures: one question, or a dialogue that ends with an empty line.

    Several pictures are each an --image, in their order; a question may say where each one stands
    (docs/reference/record-format.md). Questions can also come from a pipe, one a line. --json
    prints one object for each answer.
    """
    device = device_for(device)
    import torch

    from exgra_med.data.chat_template import chat_template
    from exgra_med.model.assistant import Conversation, open_images
    from exgra_med.model.bundle import load_bundle, local_folder
    from exgra_med.model.published import NOTICE
    from exgra_med.recipe.run_folder import own_template

    pictures, question = pictures_and_question(image, more or [], question)
    if template is not None:
        chat_template(template)
    # A wrong name of a picture is told before a model is fetched.
    opened = open_images(pictures)
    folder = local_folder(model)
    # Half precision is slow or missing on CPUs, and what an accelerator is for.
    dtype = torch.float32 if device == "cpu" else "auto"
    conversation = Conversation(
        load_bundle(folder, dtype, device), opened, template or own_template(folder)
    )
    typer.secho(NOTICE, dim=True, err=True)
    if question is not None:
        _answer(conversation, question, as_json)
        return
    interactive = sys.stdin.isatty()
    while True:
        if interactive:
            typer.secho("> ", nl=False, err=True)
        asked = sys.stdin.readline().strip()
        if not asked:
            return
        _answer(conversation, asked, as_json)


def pictures_and_question(
    image: Path | None, more: list[Path], question: str | None
) -> tuple[list[Path], str | None]:
    """Beside --image, the only other argument is the question.

    Raises:
        DataError: pictures are given in both ways, so their order is not clear.
    """
    if not more:
        return [] if image is None else [image], question
    if question is not None or (image is not None and image.is_file()):
        raise DataError(
            f"{image} is given beside --image, so the order of the pictures is not clear.",
            "Give every picture with --image.",
        )
    return more, None if image is None else str(image)


def _answer(conversation: "Conversation", question: str, as_json: bool) -> None:
    if as_json:
        from exgra_med.model.assistant import spoken

        answer = conversation.ask(question)
        fields = {
            "question": question,
            "text": spoken(answer.text),
            "num_tokens": answer.num_tokens,
            "finish_reason": answer.finish_reason,
        }
        if fields["text"] != answer.text:
            fields["written"] = answer.text
        typer.echo(json.dumps(fields, ensure_ascii=False))
        return
    for piece in conversation.stream(question):
        typer.echo(printable(piece), nl=False)
    typer.echo()
