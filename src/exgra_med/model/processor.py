"""The processor: tokenizer, image processor and chat template in the form servers understand.

Tokenizers are LLaMA-style with image tokens. Their normaliser and the image tokens that strip the
blanks around them reproduce the slow tokenizer of 2023 id by id. The class stays
`PreTrainedTokenizerFast`: transformers rebuilds other classes on loading and loses that behaviour.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers.models import BPE
from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

from exgra_med.data.chat_template import (
    IMAGE_BLOCK,
    IMAGE_END,
    IMAGE_PATCH,
    IMAGE_START,
    PAD,
    STOP,
    TEMPLATES,
    prompt_text,
)
from exgra_med.data.records import Turn
from exgra_med.errors import RecipeError

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
RESERVED = (UNKNOWN, BEGIN, END, *(f"<0x{byte:02X}>" for byte in range(256)))
"""The first pieces of every LLaMA vocabulary."""
SPACE = "▁"
MIN_CHARACTER_COUNT = 2
"""Rarer characters are written as bytes."""
_WORD = rf"{SPACE}?\p{{L}}+|{SPACE}?[^\p{{L}}\p{{N}}{SPACE}\n]+|\p{{N}}|{SPACE}"
# Every training sequence holds the layout once, so the layout counts as often as the texts.
_SCAFFOLD = prompt_text([Turn(role="user", text="?")], "exgra", 0, ["Yes", "No"]) + f" {STOP}"


def llama_tokenizer(
    vocabulary: dict[str, int], merges: Sequence[tuple[str, str]], begin: str = BEGIN
) -> PreTrainedTokenizerFast:
    """A byte-fallback BPE tokenizer that encodes as the slow LLaMA tokenizer did, with `[PAD]`,
    `<im_patch>`, `<im_start>`, `<im_end>` added in this order.

    Args:
        vocabulary: piece -> id, with `<unk>`, `<s>`, `</s>` and the 256 byte pieces.
        merges: pairs of pieces, most important first.
        begin: the token every text begins with.
    """
    model = BPE(vocabulary, list(merges), unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True)
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in (UNKNOWN, BEGIN, END)]
    )
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A",
        pair=f"{begin} $A {begin} $B",
        special_tokens=[(begin, vocabulary[begin])],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=begin,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    add_image_tokens(tokenizer)
    return tokenizer


def add_image_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    """Add `[PAD]`, `<im_patch>`, `<im_start>`, `<im_end>`; they strip the blanks around them."""
    added = [
        AddedToken(token, lstrip=True, rstrip=True, normalized=False, special=True)
        for token in (PAD, IMAGE_PATCH, IMAGE_START, IMAGE_END)
    ]
    tokenizer.add_special_tokens({"pad_token": added[0]})
    tokenizer.add_tokens(added[1:], special_tokens=True)


def check_vocabulary(texts: Iterable[str], vocabulary_size: int) -> list[str]:
    """The characters that a tokenizer of these texts has as pieces.

    Raises:
        RecipeError: `vocabulary_size` has no room for the reserved pieces and the characters.
    """
    counts = Counter(character for text in texts for character in text)
    alphabet = {c for c, n in counts.items() if n >= MIN_CHARACTER_COUNT and c.isprintable()}
    alphabet = sorted((alphabet | set(_SCAFFOLD)) - {"\n", " ", SPACE})
    needed = len(RESERVED) + len(alphabet) + 1
    if vocabulary_size < needed:
        raise RecipeError(
            f"`tokenizer.vocabulary_size` is {vocabulary_size}, but the reserved pieces and the "
            f"characters of the texts alone need {needed}.",
            f"Set it to {needed} or more.",
        )
    return alphabet


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer as LLaMA's was: digits apart, no piece across a blank, bytes for the rest.

    The same texts give the same tokenizer, in any process. `vocabulary_size` counts the pieces
    before the four added tokens; fewer where the texts have not enough.

    Raises:
        RecipeError: `vocabulary_size` has no room for the reserved pieces and the characters.
    """
    texts = list(texts)
    alphabet = check_vocabulary(texts, vocabulary_size)
    backend = Tokenizer(BPE(unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), "removed", invert=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=list(RESERVED),
        initial_alphabet=[SPACE, *alphabet],
        show_progress=False,
    )
    known = {*alphabet, " "}
    lines = ("".join(c if c in known else "\n" for c in f" {text}") for text in texts)
    scaffold = (f" {_SCAFFOLD}" for _ in texts)
    pieces = (line.replace(" ", SPACE) for line in chain(lines, scaffold))
    backend.train_from_iterator(pieces, trainer)
    model = json.loads(backend.to_str())["model"]
    return llama_tokenizer(model["vocab"], [tuple(merge) for merge in model["merges"]])


_EXGRA = TEMPLATES["exgra"]
_WITHOUT_IMAGE_TOKENS = "".join(
    f" | replace('{token}', '')" for token in (IMAGE_PATCH, IMAGE_START, IMAGE_END)
)
# Images stand where they are among the texts of their turn. Where they all come first, as most
# clients send them, they follow the text, as in training, unless it begins with a line break: so
# this project's own clients send a question that begins with an image. Blanks around an image are
# no tokens.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    + _EXGRA.opening.replace("\n", "{{ '\\n' }}")
    + "{%- for message in messages -%}"
    "{%- set turn = namespace(said='', lead='', after_text=false) -%}"
    "{%- if message['content'] is string -%}"
    "{%- set turn.said = message['content']" + _WITHOUT_IMAGE_TOKENS + " -%}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'text' -%}"
    "{%- set text = part['text']" + _WITHOUT_IMAGE_TOKENS + " -%}"
    "{%- if turn.lead and text.startswith('\\n') -%}"
    "{%- set turn.said = turn.lead + turn.said -%}{%- set turn.lead = '' -%}{%- endif -%}"
    "{%- set turn.said = turn.said + ('\\n' if turn.after_text else '') + text -%}"
    "{%- set turn.after_text = true -%}"
    "{%- elif part['type'] in ('image', 'image_url') and message['role'] == 'user' -%}"
    "{%- if turn.said -%}"
    "{%- set turn.said = turn.lead + turn.said + '\\n" + IMAGE_BLOCK + "' -%}"
    "{%- set turn.lead = '' -%}"
    "{%- else -%}{%- set turn.lead = turn.lead + '\\n" + IMAGE_BLOCK + "' -%}{%- endif -%}"
    "{%- set turn.after_text = false -%}"
    "{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{%- set said = turn.said | trim + turn.lead -%}"
    "{%- if message['role'] == 'assistant' -%}{{ ' ' + said + '\\n###' }}"
    "{%- elif message['role'] == 'user' -%}{{ ' Human: ' + said + '\\n###' }}"
    "{%- if not loop.last or add_generation_prompt -%}{{ ' Assistant:' }}{%- endif -%}"
    "{%- endif -%}{%- endfor -%}"
)
"""The template `exgra` in Jinja; system messages are left out, as training knew only one."""


def clip_image_processor(image_size: int, **changes: Any) -> CLIPImageProcessorPil:
    """The original's: shortest side to `image_size` pixels (bicubic), centre crop, normalise."""
    crop = {"height": image_size, "width": image_size}
    sizes: dict[str, Any] = {"size": {"shortest_edge": image_size}, "crop_size": crop}
    return CLIPImageProcessorPil(**(sizes | changes))


def make_processor(
    tokenizer: PreTrainedTokenizerFast,
    image_processor: CLIPImageProcessorPil,
    patch_size: int,
    has_class_token: bool = True,
) -> LlavaProcessor:
    """Join a tokenizer that knows the image tokens and an image processor.

    `patch_size` is in pixels; `has_class_token` says whether the vision tower's first token is no
    patch (CLIP, ViT; not SigLIP).
    """
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default" if has_class_token else "full",
        num_additional_image_tokens=int(has_class_token),
        image_token=IMAGE_PATCH,
        chat_template=CHAT_TEMPLATE,
    )
