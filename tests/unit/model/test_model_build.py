import hashlib
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from exgra_med.errors import CheckpointError, DataError, RecipeError
from exgra_med.model.bundle import Bundle
from exgra_med.model.native import ExgraConfig, connector_layers
from exgra_med.model.processor import train_tokenizer

CODE = """
import hashlib, sys
from exgra_med.model.processor import train_tokenizer
texts = sys.stdin.read().split(chr(0))
print(hashlib.sha256(train_tokenizer(texts, 700).backend_tokenizer.to_str().encode()).hexdigest())
"""


@pytest.mark.slow
def test_the_tokenizer_is_the_same_in_any_process() -> None:
    words = [f"w{i % 97} lesion{i % 13}, {i} mm in lobe {i % 7}" for i in range(3000)]
    here = train_tokenizer(words, 700).backend_tokenizer.to_str().encode()
    environment = os.environ | {"RAYON_NUM_THREADS": "4", "PYTHONHASHSEED": "4"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        input="\0".join(words),
        env=environment,
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == hashlib.sha256(here).hexdigest()


def test_tokens_come_in_the_order_of_the_original(bundle: Bundle) -> None:
    names = ["[PAD]", "<im_patch>", "<im_start>", "<im_end>"]
    size = len(bundle.tokenizer)
    assert bundle.tokenizer.convert_tokens_to_ids(names) == list(range(size - 4, size))
    assert bundle.tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == [
        "<unk>",
        "<s>",
        "</s>",
        "<0x00>",
    ]
    assert (bundle.image_token_id, *bundle.marker_ids) == (
        size - 3,
        size - 2,
        size - 1,
    )
    assert bundle.pad_token_id == size - 4
    assert bundle.model.config.image_token_id == bundle.image_token_id


@pytest.mark.parametrize("text", ["The 12 lesions.", "  two  blanks ", "β ≥ 5µm\n日本\tx", "###"])
def test_every_text_survives_the_tokenizer(bundle: Bundle, text: str) -> None:
    ids = bundle.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert bundle.tokenizer.decode(ids) == text
    assert bundle.tokenizer.unk_token_id not in ids


def test_pieces_hold_no_inner_blank_and_digits_stand_alone(bundle: Bundle) -> None:
    pieces = [p for p in bundle.tokenizer.get_vocab() if not p.startswith("<") and p != "[PAD]"]
    assert not [p for p in pieces if "▁" in p[1:]]
    assert not [p for p in pieces if len(p) > 1 and any(c.isdigit() for c in p)]


def test_a_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(RecipeError, match="vocabulary_size"):
        train_tokenizer(["a lesion"] * 3, 260)


def test_equal_seeds_give_equal_weights(make_bundle: Callable[..., Bundle]) -> None:
    state = torch.get_rng_state()
    one, two, other = make_bundle(seed=1), make_bundle(seed=1), make_bundle(seed=2)
    assert torch.equal(state, torch.get_rng_state())
    pairs = zip(one.model.state_dict().values(), two.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(one.model.lm_head.weight, other.model.lm_head.weight)


@pytest.mark.parametrize(("connector", "factor"), [("none", 1), ("dci", 3), ("sci", 3)])
def test_the_connector_widens_the_projector(
    make_bundle: Callable[..., Bundle], connector: str, factor: int
) -> None:
    model = make_bundle(connector).model
    assert model.model.multi_modal_projector.linear_1.in_features == 16 * factor
    assert model.image_features(torch.randn(2, 3, 28, 28)).shape == (2, 4, 32)


def test_dense_layers_of_a_24_layer_tower(bundle: Bundle) -> None:
    assert connector_layers(bundle.model.config) == [[23], [*range(12)], [*range(12, 24)]]


def test_sti_is_refused_with_the_reason() -> None:
    with pytest.raises(CheckpointError, match="320 visual tokens"):
        ExgraConfig(connector="sti")


def test_a_tower_too_shallow_for_the_connector_is_refused(bundle: Bundle) -> None:
    config = ExgraConfig.from_dict(bundle.model.config.to_dict() | {"connector_split": 13})
    with pytest.raises(CheckpointError, match="hidden state 25"):
        connector_layers(config)


def test_forward_equals_inserting_by_hand(bundle: Bundle) -> None:
    pixels = torch.randn(2, 3, 28, 28)
    patch = bundle.image_token_id
    ids = torch.tensor(
        [[1, patch, patch, patch, patch, 9], [1, 5, 6, 7, 8, 9], [1] + [patch] * 4 + [4]]
    )
    embeds = bundle.model.insert_images(ids, bundle.model.image_features(pixels))
    by_hand = bundle.model(inputs_embeds=embeds).logits
    assert torch.equal(by_hand, bundle.model(input_ids=ids, pixel_values=pixels).logits)


def test_a_text_only_row_does_not_shift_the_images(bundle: Bundle) -> None:
    features = bundle.model.image_features(torch.randn(2, 3, 28, 28))
    patch = bundle.image_token_id
    ids = torch.tensor([[1] + [patch] * 4, [1, 5, 6, 7, 8], [1] + [patch] * 4])
    embeds = bundle.model.insert_images(ids, features)
    assert torch.equal(embeds[0, 1:], features[0])
    assert torch.equal(embeds[1], bundle.model.get_input_embeddings()(ids[1]))
    assert torch.equal(embeds[2, 1:], features[1])


def test_counts_that_do_not_fit_are_refused(bundle: Bundle) -> None:
    with pytest.raises(DataError, match=r"3 image placeholders.*1 images have 4"):
        bundle.model.insert_images(
            torch.tensor([[1] + [bundle.image_token_id] * 3]), torch.zeros(1, 4, 32)
        )


def test_a_frozen_tower_gets_no_gradient_and_stays_in_evaluation_mode(
    make_bundle: Callable[..., Bundle],
) -> None:
    model = make_bundle("dci").model
    model.model.vision_tower.requires_grad_(False)
    model.train()
    assert model.training and not model.model.vision_tower.training
    model.image_features(torch.randn(1, 3, 28, 28)).sum().backward()
    assert model.model.multi_modal_projector.linear_1.weight.grad is not None
    assert all(weight.grad is None for weight in model.model.vision_tower.parameters())
    model.model.vision_tower.requires_grad_(True)
    model.image_features(torch.randn(1, 3, 28, 28)).sum().backward()
    assert model.model.vision_tower.embeddings.patch_embedding.weight.grad is not None
