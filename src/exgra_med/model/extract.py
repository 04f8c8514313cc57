"""The language model of a bundle on its own: a plain LLaMA folder, for `model.parts`."""

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from exgra_med.model.bundle import Bundle, quiet
from exgra_med.model.folder import CONFIG, read_json, write_json, written_whole


def save_language_model(bundle: Bundle, folder: Path) -> None:
    """Write language model and tokenizer; whole or not at all.

    The rows of the four added tokens stay in the matrices, and the tokens in the tokenizer: whoever
    joins the parts again makes their rows anew.

    Raises:
        CheckpointError: the folder holds something else.
        DiskFullError: nothing more fits.
    """
    source: Any = bundle.model
    model = AutoModelForCausalLM.from_config(source.config.text_config)
    model.model.load_state_dict(source.get_decoder().state_dict())
    model.lm_head.load_state_dict(source.get_output_embeddings().state_dict())
    with written_whole(folder) as fresh, quiet():
        model.save_pretrained(fresh)
        bundle.tokenizer.save_pretrained(fresh)
        settings = read_json(fresh / "tokenizer_config.json")
        write_json(
            fresh / "tokenizer_config.json",
            settings | {"tokenizer_class": "PreTrainedTokenizerFast"},
        )
        # Its head is a matrix of its own, whatever the library's default says.
        config = read_json(fresh / CONFIG)
        write_json(fresh / CONFIG, config | {"tie_word_embeddings": False})
