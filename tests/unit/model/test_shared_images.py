"""Questions about one image share its tokens in a row: the same values and gradients, less work."""

from dataclasses import replace

import pytest

from any_models import PACKED, TEXT, bundle_of, families, pictures, record, relative
from exgra_med.model.any_model import AnyBundle
from exgra_med.model.batch import Layout, TrainingExample, num_supervised, stand_in
from exgra_med.training.objective import Objective

SHARING = ["llava", "idefics3", "internvl", "llava_next", "llava_onevision", "smolvlm"]


SAME = [
    record("same", 1, "Which organ is abnormal?", "The left lung."),
    record("same", 1, "Is there a mass in the lung?", "Yes."),
    record("same", 1, "Which side?", "Left."),
    record("other", 1, "Which organ is shown?", "The heart, and some of the liver."),
    record("text", 0, "What is a mass?", "A finding."),
]


def about_one_image(bundle: AnyBundle) -> list[TrainingExample]:
    """Three questions about one picture, one about another, and a text."""
    made = []
    for number, chosen in enumerate(SAME):
        images = pictures(len(chosen.images), seed=len(chosen.id))
        told = bundle.conversation(chosen, images, TEXT)
        made.append(TrainingExample(str(number), [told], bool(images), [], []))
    return made


@families(SHARING, slow=SHARING[3:])
def test_questions_about_one_image_share_it_in_values_and_gradients(name: str) -> None:
    found = []
    for shares in (False, True):
        bundle = bundle_of(name)
        assert bundle.facts.shares_images
        bundle.facts = replace(bundle.facts, shares_images=shares)
        batch = bundle.collate(about_one_image(bundle), Layout(tokens_per_row=1))
        images = sum(
            int((call["input_ids"] == bundle.image_token_id).sum()) for call in batch["calls"]
        )
        objective = Objective(bundle, None).train()
        loss = objective(batch, [0])["language_loss_sum"]
        loss.backward()
        gradients = {n: w.grad for n, w in bundle.model.named_parameters() if w.grad is not None}
        found.append((float(loss.detach()), images, gradients, num_supervised(batch)))
    (apart, all_images, expected, supervised), (shared, images, gradients, counted) = found
    assert supervised == counted
    assert images * 4 == all_images * 2 or name == "llava_next"  # tiles depend on the size
    assert images < all_images
    assert shared == pytest.approx(apart, rel=1e-5)
    assert gradients.keys() == expected.keys()
    scale = max(float(each.abs().max()) for each in expected.values())
    for parameter, gradient in gradients.items():
        assert float((gradient - expected[parameter]).abs().max()) < 1e-5 * scale, parameter


@families(SHARING[:1], slow=())
def test_nodes_of_a_graph_keep_an_image_each(name: str) -> None:
    bundle = bundle_of(name)
    nodes = [replace(each, answer_ids=[5]) for each in about_one_image(bundle)]
    batch = bundle.collate(nodes, PACKED)
    assert sorted(set(batch["node_of_image"].tolist())) == [0, 1, 2, 3]
    assert all(call["inputs"].get("attention_mask") is None for call in batch["calls"])


@families(SHARING[:1], slow=())
def test_where_prompts_are_learnt_no_image_is_shared(name: str) -> None:
    bundle = bundle_of(name)
    told = [
        bundle.conversation(each, pictures(1), TEXT, train_on_prompts=True) for each in SAME[:2]
    ]
    examples = [TrainingExample(str(n), [each], True, [], []) for n, each in enumerate(told)]
    batch = bundle.collate(examples, PACKED)
    images = (batch["calls"][0]["input_ids"] == bundle.image_token_id).sum()
    alone = bundle.collate(examples[:1], PACKED)["calls"][0]["input_ids"]
    assert images == 2 * (alone == bundle.image_token_id).sum()


@families(SHARING[:1], slow=())
def test_kept_features_are_shared_as_pictures_are(name: str) -> None:
    bundle, states = bundle_of(name), []
    for keeps in (False, True):
        made = []
        for number, chosen in enumerate(SAME):
            images = pictures(len(chosen.images), seed=len(chosen.id))
            if keeps:
                images = [stand_in(each.size, bundle.image_features(each)) for each in images]
            told = bundle.conversation(chosen, images, TEXT)
            made.append(TrainingExample(str(number), [told], bool(images), [], []))
        batch = bundle.collate(made, Layout(tokens_per_row=1))
        _, hidden = bundle.encode(batch)
        assert any(call["inputs"].get("attention_mask") is not None for call in batch["calls"])
        states.append(hidden)
    assert all(relative(one, other) < 1e-5 for one, other in zip(*states, strict=True))
