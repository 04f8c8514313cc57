"""A family that transformers does not know: an installed package registers it, and it runs."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
import yaml
from test_any_model import learnt
from typer.testing import CliRunner

from any_models import PACKED, examples, pictures
from exgra_med.cli.main import app
from exgra_med.data.records import Turn
from exgra_med.errors import CheckpointError
from exgra_med.model.any_model import AnyBundle
from exgra_med.model.bundle import load_bundle, save_bundle
from exgra_med.model.generate import generate
from exgra_med.recipe.schema import StageAlignment
from exgra_med.training.objective import Objective
from exgra_med.training.trainable import set_trainable
from families import make

PACKAGE = '''
import torch
from torch import nn
from transformers import (
    AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, GenerationMixin, LlamaConfig,
    LlavaProcessor, PreTrainedConfig, PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast


class GlyphConfig(PreTrainedConfig):
    """Its tower is one linear layer over patches, and its inputs have names of their own."""

    model_type = "glyph"
    sub_configs = {"text_config": LlamaConfig}

    def __init__(self, text_config=None, image_token_id=0, patch=14, **kwargs):
        known = isinstance(text_config, LlamaConfig)
        self.text_config = text_config if known else LlamaConfig(**(text_config or {}))
        self.image_token_id, self.patch = image_token_id, patch
        super().__init__(**kwargs)


class GlyphModel(PreTrainedModel):
    config_class = GlyphConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        width, patch = config.text_config.hidden_size, config.patch
        self.vision_tower = nn.Linear(3 * patch * patch, 8)
        self.bridge = nn.Linear(8, width)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self):
        return self.language_model.get_input_embeddings()

    def forward(self, input_ids=None, glyphs=None, attention_mask=None, position_ids=None,
                past_key_values=None, inputs_embeds=None, use_cache=None, **kwargs):
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
            places = (input_ids == self.config.image_token_id).unsqueeze(-1)
            if glyphs is not None and bool(places.any()):
                patch = self.config.patch
                cut = glyphs.unfold(2, patch, patch).unfold(3, patch, patch)
                cut = cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
                seen = self.bridge(torch.tanh(self.vision_tower(cut)))
                inputs_embeds = inputs_embeds.masked_scatter(places, seen.to(inputs_embeds.dtype))
        return self.language_model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, use_cache=use_cache,
        )


class GlyphForConditionalGeneration(PreTrainedModel, GenerationMixin):
    config_class = GlyphConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.model = GlyphModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.get_input_embeddings()

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids=None, glyphs=None, attention_mask=None, position_ids=None,
                past_key_values=None, inputs_embeds=None, labels=None, use_cache=None,
                logits_to_keep=0, **kwargs):
        seen = self.model(
            input_ids=input_ids, glyphs=glyphs, attention_mask=attention_mask,
            position_ids=position_ids, past_key_values=past_key_values,
            inputs_embeds=inputs_embeds, use_cache=use_cache,
        )
        # Not the head alone: such families exist, and only their own forward knows.
        logits = 5.0 * torch.tanh(self.lm_head(seen.last_hidden_state) / 5.0)
        return CausalLMOutputWithPast(logits=logits, past_key_values=seen.past_key_values)


class GlyphProcessor(LlavaProcessor):
    def __call__(self, images=None, text=None, **kwargs):
        batch = super().__call__(images=images, text=text, **kwargs)
        if "pixel_values" in batch:
            batch["glyphs"] = batch.pop("pixel_values")
        return batch


AutoConfig.register("glyph", GlyphConfig)
AutoModelForImageTextToText.register(GlyphConfig, GlyphForConditionalGeneration)
AutoProcessor.register(GlyphConfig, GlyphProcessor)
FAMILY = "glyph"
'''
FOLDER = Path("a")


@pytest.fixture(scope="module")
def glyph(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder of the family, and how its package is installed."""
    folder = tmp_path_factory.mktemp("glyph")
    about = folder / "site" / "glyphs-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: glyphs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[exgra_med.models]\nglyph = glyphs:FAMILY\n")
    (folder / "site" / "glyphs.py").write_text(PACKAGE)
    sys.path.insert(0, str(folder / "site"))
    import glyphs  # type: ignore

    _, processor = make("llava")
    text = make("llava")[0].config.text_config
    config = glyphs.GlyphConfig(text_config=text, image_token_id=processor.image_token_id)
    torch.manual_seed(0)
    model = glyphs.GlyphForConditionalGeneration(config)
    own = glyphs.GlyphProcessor(
        image_processor=processor.image_processor,
        tokenizer=processor.tokenizer,
        patch_size=14,
        vision_feature_select_strategy="full",
        chat_template=processor.chat_template,
    )
    model.save_pretrained(folder / "model")
    own.save_pretrained(folder / "model")
    del sys.modules["glyphs"]
    yield folder / "model"
    sys.path.remove(str(folder / "site"))


def test_a_family_of_another_package_runs_without_a_change_here(
    glyph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = load_bundle(glyph)
    assert isinstance(bundle, AnyBundle) and type(bundle.model).__name__.startswith("Glyph")
    assert bundle.facts.leak == 0 and bundle.facts.image_packing == "plain"
    assert bundle.facts.head_difference > 1e-3, "its logits are not those of the head"
    batch = bundle.collate(examples(bundle), PACKED)
    assert len(learnt(bundle, batch)) <= 4
    set_trainable(bundle, ["connector", "language"])
    assert [n for n, w in bundle.model.named_parameters() if not w.requires_grad] == [
        "model.vision_tower.weight",
        "model.vision_tower.bias",
    ]
    losses = Objective(bundle, StageAlignment(neighbours=1)).train()(batch, [0])
    (losses["language_loss_sum"] + losses["alignment_loss"]).backward()
    assert all(w.grad is not None for w in bundle.part("connector"))
    bundle.model.eval()
    with torch.no_grad():
        hidden, _ = bundle.states(batch["calls"][0]["inputs"])
        own = bundle.model(**batch["calls"][0]["inputs"], use_cache=False).logits
        assert torch.allclose(bundle.logits(hidden.flatten(0, 1)), own.flatten(0, 1), atol=1e-6)
    prompt = bundle.prompt([Turn(role="user", text="Which organ?")], 1)
    assert generate(bundle, [prompt], [pictures(1)], 5)[0].num_tokens >= 1
    save_bundle(bundle, tmp_path / "saved")
    _, report = hf.AutoModelForImageTextToText.from_pretrained(
        tmp_path / "saved", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]


def test_the_command_line_takes_it_too(
    glyph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration does not say the sizes of its tower under any usual name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = CliRunner().invoke
    inspected = run(app, ["checkpoint", "inspect", str(glyph), "--json"])
    assert inspected.exit_code == 0, inspected.output
    assert json.loads(inspected.stdout)["vision"] == {}
    recipe = tmp_path / "recipe.yaml"
    stage = {"trainable": ["connector"], "max_steps": 1, "batch_size": 4, "learning_rate": 1e-3}
    recipe.write_text(
        yaml.safe_dump(
            {
                "name": "glyph",
                "model": {"start": str(glyph)},
                "data": {"folder": "bundled:vqa-rad-sample", "held_out_split": None},
                "text": {"max_length": 512},
                "stages": {"vqa": stage},
                "evaluation": {"max_new_tokens": 4},
            }
        )
    )
    planned = run(app, ["train", str(recipe), "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert "does not say the sizes of its vision tower" in planned.output
    trained = run(app, ["train", str(recipe), "--out", str(tmp_path / "run")])
    assert trained.exit_code == 0, trained.output


def test_without_its_package_the_folder_is_refused(tmp_path: Path) -> None:
    model, processor = make("llava")
    model.save_pretrained(tmp_path / "m")
    processor.save_pretrained(tmp_path / "m")
    config = tmp_path / "m/config.json"
    config.write_text(config.read_text().replace('"model_type": "llava"', '"model_type": "glyf"'))
    with pytest.raises(CheckpointError, match="glyf"):
        load_bundle(tmp_path / "m")
