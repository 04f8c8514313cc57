"""Vision survives the way to llama.cpp: a model exported as GGUF gives its own logits there."""

import base64
import io
import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import normalizers
from typer.testing import CliRunner

import families
from exgra_med.cli.main import app
from exgra_med.model.any_model import AnyBundle
from exgra_med.model.bundle import load_bundle, save_bundle
from exgra_med.model.convert.gguf import CONVERTERS
from exgra_med.model.processor import train_tokenizer

pytestmark = pytest.mark.slow
SIZE = 56
"""Of an image in pixels, as the model reads it: nothing is resized on either side."""
WIDE = {"hidden_size": 64, "intermediate_size": 128}
"""Two heads of 32 channels: llama.cpp computes in blocks of 32."""
TEXT = "Human: IMAGE What does the image show? The heart"


def gemma3() -> tuple[Any, Any]:
    """Gemma 3 with a tokenizer of its kind: BPE with pieces for bytes, no blank put in front."""
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    named["image_token"] = "<image_soft_token>"
    backend: Any = train_tokenizer(families.CORPUS * 4, 400).backend_tokenizer
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.add_special_tokens(["<pad>", *named.values()])
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer: Any = hf.PreTrainedTokenizerFast(
        tokenizer_object=backend, extra_special_tokens=named, padding_side="left", **ends
    )
    boi, eoi, image = families.ids_of(tokenizer, *named.values())
    config = hf.Gemma3Config(
        vision_config=families.VISION | WIDE,
        text_config=families.text_config(
            tokenizer, **WIDE, head_dim=32, query_pre_attn_scalar=32, sliding_window=512
        ),
        mm_tokens_per_image=4,
        image_token_index=image,
        boi_token_index=boi,
        eoi_token_index=eoi,
    )
    pixels = hf.Gemma3ImageProcessorPil(size={"height": SIZE, "width": SIZE})
    torch.manual_seed(0)
    model = hf.Gemma3ForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                # Of a fresh model images and words move the logits by little, the projection of
                # the images is zero.
                weight.normal_(0, 0.1 if "projection" in name else 0.08)
    template = families.make("gemma3")[1].chat_template
    processor = hf.Gemma3Processor(pixels, tokenizer, image_seq_length=4, chat_template=template)
    return model, processor


def published_names(folder: Path) -> None:
    """The tower's weights named as in the published folder, which transformers then keeps."""
    path = folder / "model.safetensors"
    prefix = "vision_tower."
    weights = {
        name.replace(prefix, f"{prefix}vision_model."): weight
        for name, weight in load_file(path).items()
    }
    save_file(weights, path, metadata={"format": "pt"})


def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)) for _ in "ab"]


class LlamaCpp:
    """A server of llama.cpp in this process; all in float32 but what its kernels round."""

    def __init__(self, folder: Path, num_tokens: int) -> None:
        llama: Any = pytest.importorskip("xllamacpp", reason="needs llama.cpp as a package")
        settings = llama.CommonParams()
        settings.model.path = str(folder / "model.gguf")
        settings.mmproj.path = str(folder / "mmproj.gguf")
        settings.n_ctx, settings.n_parallel, settings.cpuparams.n_threads = 512, 1, 1
        settings.cache_type_k = settings.cache_type_v = llama.ggml_type.GGML_TYPE_F32
        settings.warmup = False
        self.server, self.num_tokens = llama.Server(settings), num_tokens
        self.marker = self.post("/props")["media_marker"]

    def post(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.server.listening_address}{path}", data, head)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def tokens(self, text: str) -> list[int]:
        return self.post("/tokenize", {"content": text, "add_special": True})["tokens"]

    def log_probabilities(self, text: str, image: Image.Image) -> np.ndarray:
        """[V] of the token after a text, whose IMAGE is the image."""
        stream = io.BytesIO()
        image.save(stream, "PNG")
        prompt = {
            "prompt_string": text.replace("IMAGE", self.marker),
            "multimodal_data": [base64.b64encode(stream.getvalue()).decode()],
        }
        # The token that is drawn must be text, or nothing is reported; its bias is not in the
        # probabilities, which are taken before.
        body = {"prompt": prompt, "n_predict": 1, "n_probs": self.num_tokens}
        reply = self.post("/completion", body | {"logit_bias": [[300, 1e3]], "cache_prompt": False})
        found = np.full(self.num_tokens, np.nan)
        for each in reply["completion_probabilities"][0]["top_logprobs"]:
            found[each["id"]] = each["logprob"]
        return found


@torch.no_grad()
def test_llama_cpp_gives_the_logits_of_text_and_image(tmp_path: Path) -> None:
    if not any(map(shutil.which, CONVERTERS)):
        pytest.skip("no converter of llama.cpp on the PATH")
    native, out = tmp_path / "model", tmp_path / "gguf"
    save_bundle(AnyBundle(*gemma3()), native)
    published_names(native)
    save_bundle(load_bundle(native), native)
    assert not (native / "tokenizer.model").exists()
    command = ["checkpoint", "export", str(native), "--format", "gguf", "--out", str(out)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert sorted(file.name for file in out.iterdir()) == [
        "export.json",
        "mmproj.gguf",
        "model.gguf",
    ]

    bundle: Any = load_bundle(native)
    llama = LlamaCpp(out, len(bundle.tokenizer))
    for text in families.CORPUS:
        assert llama.tokens(text) == bundle.tokenizer(text)["input_ids"]
    ours, theirs = [], []
    for image in pictures():
        inputs = bundle.processor(
            text=TEXT.replace("IMAGE", "<start_of_image>"), images=[[image]], return_tensors="pt"
        )
        ours.append(bundle.model(**inputs).logits[0, -1].log_softmax(-1).numpy())
        # Of what transformers puts around an image, llama.cpp leaves the empty lines to the text.
        theirs.append(llama.log_probabilities(TEXT.replace("IMAGE", "\n\nIMAGE\n\n"), image))
    effect = abs(ours[0] - ours[1]).max()
    error = max(abs(one - other).max() for one, other in zip(ours, theirs, strict=True))
    assert effect > 0.3
    # Measured 0.0022: llama.cpp looks GELU up in a table of float16, and the converter keeps the
    # projection of the images in float16.
    assert error < 0.01
