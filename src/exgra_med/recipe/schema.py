"""The recipe: the only place where a hyper-parameter lives.

Every section is a strict frozen pydantic model; the line under a field is its documentation, in the
reference pages and in the JSON Schema alike.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from exgra_med.alignment.settings import AlignmentSettings
from exgra_med.errors import RecipeError
from exgra_med.section import (
    Count,
    Fraction,
    NotNegative,
    Positive,
    Section,
    Seed,
    explain,
    without_nulls,
)

Size = Annotated[int, Field(gt=0, le=1_000_000)]
_PART = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
Name = Annotated[str, Field(pattern=rf"^{_PART}$", max_length=100)]
"""Of a stage, and so of a folder."""
Layers = Annotated[int, Field(gt=0, le=1000)]


class VisionArchitecture(Section):
    """A CLIP vision tower built from its sizes."""

    hidden_size: Size = 1024
    """Width of a token, and of what the projector reads."""
    intermediate_size: Size = 4096
    """Width inside the feed-forward part of a layer."""
    num_layers: Layers = 24
    """Transformer layers; DCI reads from several of them."""
    num_heads: Size = 16
    """Attention heads of a layer; they divide its width."""
    image_size: Size = 224
    """Pixels along each side of the square image that the tower sees."""
    patch_size: Size = 14
    """Pixels along each side of one patch."""
    feature_layer: int = -2
    """Which hidden state feeds the projector; -2 is the paper's."""

    @model_validator(mode="after")
    def _fits_together(self) -> VisionArchitecture:
        _check_heads(self.hidden_size, self.num_heads)
        if self.patch_size > self.image_size:
            raise ValueError(
                f"`patch_size: {self.patch_size}` is larger than `image_size: {self.image_size}`"
            )
        # Layer 0 is what enters the first layer; negative numbers count from the last one.
        if not -self.num_layers - 1 <= self.feature_layer <= self.num_layers:
            raise ValueError(
                f"`feature_layer: {self.feature_layer}` is none of the hidden states of "
                f"{self.num_layers} layers"
            )
        return self


class LanguageArchitecture(Section):
    """A LLaMA language model built from its sizes."""

    hidden_size: Size = 4096
    """Width of a token, and of a node of the graphs."""
    intermediate_size: Size = 11008
    """Width inside the feed-forward part of a layer."""
    num_layers: Layers = 32
    """Transformer layers."""
    num_heads: Size = 32
    """Attention heads of a layer; they divide its width."""
    max_positions: Size = 2048
    """Longest sequence in tokens."""

    @model_validator(mode="after")
    def _fits_together(self) -> LanguageArchitecture:
        _check_heads(self.hidden_size, self.num_heads)
        if self.hidden_size // self.num_heads % 2:
            raise ValueError(
                f"`hidden_size: {self.hidden_size}` over `num_heads: {self.num_heads}` is odd, and "
                "rotary positions turn pairs of features"
            )
        return self


def _check_heads(hidden_size: int, num_heads: int) -> None:
    if hidden_size % num_heads:
        raise ValueError(f"`num_heads: {num_heads}` does not divide `hidden_size: {hidden_size}`")


class TokenizerArchitecture(Section):
    """A LLaMA-style byte-fallback BPE tokenizer trained on the run's own text."""

    vocabulary_size: Size = 32000
    """Pieces before the padding token and the three image tokens are added."""


class Architecture(Section):
    """A model built from sizes, with random weights under the run's seed."""

    vision: VisionArchitecture = VisionArchitecture()
    """The image tower."""
    language: LanguageArchitecture = LanguageArchitecture()
    """The language model."""
    tokenizer: TokenizerArchitecture = TokenizerArchitecture()
    """What text is cut into."""
    connector: Literal["none", "dci", "sci"] = "none"
    """Which vision layers reach the projector: one, or dense mixtures of them."""


class Parts(Section):
    """A model joined from a trained language model and a trained vision tower."""

    language: str
    """Folder or hub name of a language model: LLaMA, Mistral or Qwen2; for `mlp` and
    `pixel-shuffle` also Qwen3, Gemma 2, Gemma 3 (text), SmolLM2 or SmolLM3."""
    vision: str
    """Folder or hub name of a CLIP model, or of its vision tower alone; for `mlp` and
    `pixel-shuffle` also a SigLIP, SigLIP 2 of fixed size, DINOv2 or DINOv3."""
    connector: Literal["none", "dci", "sci", "mlp", "pixel-shuffle"] = "none"
    """What reaches the language model, through a projector that is random under the run's seed.
    `none`, `dci` and `sci` make this project's own model: one vision layer, or dense mixtures of
    them. `mlp` and `pixel-shuffle` make a model of transformers that is asked in the chat template
    of the language model: one token a patch (LLaVA), or one for 2 x 2 patches (Aya Vision)."""
    chat_template: Literal["own", "plain"] = "own"
    """For `mlp` and `pixel-shuffle`: the language model's own, or `User: ...`, `Assistant: ...`,
    which is shorter and has no system message."""

    @model_validator(mode="after")
    def _template_is_used(self) -> Parts:
        if self.chat_template != "own" and self.connector in ("none", "dci", "sci"):
            raise ValueError(
                f"`chat_template: {self.chat_template}` does not go with `connector: "
                f"{self.connector}`, whose template is `text.template`"
            )
        return self


class ImageSettings(Section):
    """How much of an image a model sees, and so how many tokens it has: less is faster."""

    max_pixels: Count | None = None
    """Larger images are made smaller until they have so many pixels, as the model's processor
    counts them (GLM-V counts a picture twice). For Qwen-VL, GLM-V, Pixtral and Mistral 3."""
    tiles: Count | None = None
    """Images are cut into at most so many tiles; a small picture of the whole may be added. For
    InternVL, LLaVA-NeXT, LLaVA-OneVision, Idefics 3, SmolVLM and LFM2-VL."""

    @model_validator(mode="after")
    def _says_something(self) -> ImageSettings:
        if self.max_pixels is None and self.tiles is None:
            raise ValueError("give `max_pixels` or `tiles`, or leave `images` out")
        return self


class ModelSettings(Section):
    """Where the model of the first stage comes from: a checkpoint, sizes, or trained parts."""

    start: str | None = None
    """A run folder (its last checkpoint), the folder or hub name of any vision-language model of
    transformers, or a checkpoint folder of this project."""
    architecture: Architecture | None = None
    """Sizes of a model to build with random weights."""
    parts: Parts | None = None
    """Trained parts to join."""
    expect_connector: Literal["none", "dci", "sci"] | None = None
    """Connector that `start` must have; a model with another is refused. Any where absent."""
    images: ImageSettings | None = None
    """Image budget of a model whose processor has one, kept in its checkpoints; the model's own
    where absent. This project's own model has none: it resizes every image to one size."""

    @model_validator(mode="after")
    def _one_origin(self) -> ModelSettings:
        if self.expect_connector is not None and self.start is None:
            raise ValueError("`expect_connector` is about `start`, which is not given")
        if [self.start, self.architecture, self.parts].count(None) != 2:
            raise ValueError("give exactly one of `start`, `architecture` and `parts`")
        return self


class DataSettings(Section):
    """Which prepared folder and split a stage reads."""

    folder: str
    """A prepared folder, or `bundled:NAME` for a sample that comes with the package."""
    split: str = "train"
    """Name of the JSON Lines file in the folder, without its ending."""
    held_out_split: str | None = "validation"
    """Split on which losses and matching accuracy are measured during training."""
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the split's conversations that is used; smaller shares lie inside larger ones."""
    subset_seed: Seed = 0
    """Seed of the nested subset."""
    subset_group: str | None = None
    """`image`, or a field of `meta`: a fraction then takes all records of a group or none."""
    questions_per_record: Count = 1
    """Records of one image are joined into conversations of up to this many questions."""
    max_pixels: Count = 50_000_000
    """Larger images are refused before they are decoded."""


class TextSettings(Section):
    """How a record becomes token ids."""

    template: str = "exgra"
    """Name of the chat template, the same in training and inference."""
    max_length: Count = 2048
    """Longest conversation in tokens; longer ones are cut at the end."""


class StageAlignment(AlignmentSettings):
    """Alignment of a stage: the settings of the method, and how it joins the training."""

    weight: NotNegative = 1.0
    """Factor alpha of the alignment loss beside the language-model loss."""
    pooling: Literal["tokens", "padded"] = "tokens"
    """Mean over a text's own tokens, or over the padded row as in the original."""


class AuxiliarySettings(Section):
    """A loss of another paper beside the language-model loss, token by token and without graphs: a
    rival of the alignment. `training/auxiliary.py` has the formulas."""

    loss: Literal["vista", "token-contrast", "viral"]
    """`vista`: the state of the last image token is drawn to the answer (arXiv 2505.10917).
    `token-contrast`: image tokens have to find the words of their own answer (in the manner of SEA,
    arXiv 2408.11813). `viral`: the middle layer keeps what the tower saw (arXiv 2509.07979)."""
    weight: NotNegative = 1.0
    """Factor of the loss; VIRAL's paper has 0.5."""


class LoraSettings(Section):
    """Low-rank adapters in the language model, whose own weights stay as they are."""

    rank: Count = 64
    """Width of the adapter's two factors."""
    alpha: Positive = 128.0
    """The adapter's product is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Dropout of what enters an adapter, in training."""
    target_modules: str | None = None
    """Regular expression over the whole names of the linear layers of the language model that get
    an adapter; all of them where absent."""
    quantize: Literal["none", "nf4"] = "none"
    """Keep these layers in 4 bits meanwhile (QLoRA; needs a GPU and bitsandbytes)."""

    @field_validator("target_modules")
    @classmethod
    def _is_regular(cls, expression: str | None) -> str | None:
        try:
            re.compile(expression or "")
        except re.error as error:
            raise ValueError(f"this is no regular expression: {error}") from error
        return expression


class StageSettings(Section):
    """One stage of training: what is trained, on what, for how long."""

    trainable: list[Literal["vision", "connector", "image_tokens", "language"]]
    """Parts of the model that are trained; all others are frozen. The paper never trains `vision`,
    which is a trained CLIP there; a toy tower has to be trained first."""
    data: DataSettings | None = None
    """Data of this stage; what it does not say is taken from the recipe's own `data`."""
    answers: Literal["original", "extended", "both"] = "original"
    """Which answers are trained on. `both` is a control that trains on the text of the extended
    answers without graphs: each record gives two sequences with image and question."""
    train_on_prompts: bool = False
    """Compute the loss on prompts too, as the pretraining of a language model does."""
    alignment: StageAlignment | None = None
    """Multi-graph alignment beside the language-model loss; none where absent."""
    auxiliary: AuxiliarySettings | None = None
    """A rival of the alignment; none where absent."""
    lora: LoraSettings | None = None
    """Train the language model through low-rank adapters; all of its weights where absent."""
    epochs: Positive = 1.0
    """Epochs over the data; a fraction is allowed."""
    max_steps: Count | None = None
    """Stop after this many optimizer steps, whatever the epochs say."""
    batch_size: Count = 16
    """Records of a micro-batch (one forward pass on one device); also the nodes of each graph."""
    gradient_accumulation_steps: Count = 1
    """Micro-batches of each device in one optimizer step."""
    tokens_per_row: Count = 2048
    """Length of a packed row; a longer conversation makes all rows as long as itself."""
    max_tokens_per_call: Count | None = None
    """The rows of a forward pass go to the language model in calls of at most so many tokens, one
    row at least; the graphs are over all of them. One call where absent."""
    group_by_length: bool = False
    """Put records of similar length into one step, which saves padding. The nodes of a graph are
    then of similar length too, and harder to tell apart."""
    distinct_images: bool = True
    """Give the records of a micro-batch different images, as far as the data allows: two nodes with
    the same image cannot be told apart by any matching."""
    questions_per_image: Count = 1
    """Records of one image that stand in a micro-batch together, as far as there are so many. Where
    it was measured to change nothing they share the image's tokens: equal values for less work. Not
    with alignment, whose nodes need different images."""
    learning_rate: Positive
    """Highest learning rate, of all trainable parameters that have none of their own."""
    learning_rates: Annotated[
        dict[Literal["vision", "connector", "language"], Positive], BeforeValidator(without_nulls)
    ] = Field(default={})
    """Highest learning rates of single parts, such as `{connector: 1e-3}`; they rise and fall with
    `learning_rate`. Adapters are of `language`, graph layers of no part."""
    lr_scheduler: Literal[
        "linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt"
    ] = "cosine"
    """Learning-rate scheduler, by its name in transformers. `linear` and `cosine` end at zero;
    `constant` has no warm-up."""
    warmup_ratio: Fraction = 0.03
    """Share of the steps over which the learning rate rises from zero."""
    weight_decay: NotNegative = 0.0
    """AdamW's weight decay, of all trainable parameters."""
    max_grad_norm: Positive | None = 1.0
    """Gradients are clipped to this norm; never where null."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """`adamw8bit` keeps AdamW's two moments in 8 bits, in blocks of 256 (extra `optim`)."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Data type of matrix products (autocast). `auto` measures once whether bfloat16 is faster on
    the machine; the run's own recipe then says which it is."""
    weights: Literal["float32", "bfloat16"] = "float32"
    """Data type of the weights and gradients; adapters and graph layers stay in float32. bfloat16
    needs `adamw8bit`, which rounds new weights stochastically: rounded to the nearest, steps
    smaller than 1/512 of a weight would be lost."""
    sharding: Literal["none", "full"] = "none"
    """`full` shards weights, gradients and optimizer state over the processes (FSDP2), all but the
    vision tower. `none` keeps a copy of the model in each process. One process has no shards."""
    activation_checkpointing: bool = False
    """Keep only the input of each layer of the language model, and recompute the rest for the
    backward pass."""
    compile: bool = False
    """Train the layers of the language model through `torch.compile`; equal but for rounding."""
    cache_features: bool = False
    """Compute what the frozen vision tower makes of each picture once, and keep it in the user's
    cache; steps then neither decode a picture nor run the tower. Equal bit for bit where the tower
    gives a picture the same features in a batch as alone, else but for rounding: `log.jsonl` says
    the difference that was measured."""
    num_workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Worker processes that decode images, of each training process."""
    log_every_steps: Count = 1
    """Optimizer steps from one line of `log.jsonl` to the next."""
    save_every_steps: Count | None = None
    """Steps between resumable checkpoints; none but the last where absent."""
    keep_checkpoints: Count = 1
    """Resumable checkpoints that stay on disk."""
    evaluate_every_steps: Count | None = None
    """Steps between held-out measurements; only at start and end where absent."""
    load_best_model_at_end: bool = False
    """End with the best weights, not with those of the last step. The best are those with the
    highest strict VQA average of generated answers to the held-out split, over all measurements."""
    num_held_out_batches: Count = 8
    """Held-out batches of `batch_size` records in one measurement."""
    measure_views: bool = False
    """Also measure how image, answer and extended answer of held-out records lie to each other in
    their bare pooled embeddings, with or without alignment; lines `views` of `log.jsonl`."""

    @model_validator(mode="after")
    def _goes_together(self) -> StageSettings:
        if not self.trainable and (self.aligned is None or not self.aligned.num_layers):
            raise ValueError(
                "`trainable` is empty, so that nothing would be trained; name parts of the model, "
                "such as `connector`"
            )
        if self.lora is not None and "language" not in self.trainable:
            raise ValueError("`lora` needs `language` in `trainable`")
        for part in self.learning_rates:
            if part not in self.trainable:
                raise ValueError(
                    f"`learning_rates` has a rate of `{part}`, which is not in `trainable`"
                )
        if self.aligned is not None and self.aligned.scope == "local" and self.batch_size == 1:
            # A graph of one node has loss 0: the stage would train without alignment in silence.
            raise ValueError(
                "`alignment` needs a `batch_size` of 2 or more, which is the number of nodes of a "
                "graph (one node has loss 0); or set `alignment.weight` to 0"
            )
        if self.questions_per_image > 1 and self.alignment is not None:
            raise ValueError(
                "`questions_per_image` is for a stage without `alignment`, whose nodes need "
                "different images; set one of them to its default"
            )
        if self.cache_features and "vision" in self.trainable:
            raise ValueError(
                "`cache_features` is for a frozen tower; leave `vision` out of `trainable`, or set "
                "`cache_features` to false"
            )
        if self.sharding == "full" and (reason := self.reason_against_sharding) is not None:
            raise ValueError(f"`sharding: full` {reason}")
        if self.weights == "bfloat16":
            if self.optimizer != "adamw8bit":
                raise ValueError("`weights: bfloat16` needs `optimizer: adamw8bit`")
            if self.precision != "bfloat16":
                raise ValueError("`weights: bfloat16` needs `precision: bfloat16`")
            if self.lora is not None and self.lora.quantize != "none":
                raise ValueError("`weights: bfloat16` does not go with `lora.quantize`")
        return self

    @property
    def reason_against_sharding(self) -> str | None:
        """Why `sharding: full` is refused for this stage, whether it asks for that or not."""
        if self.lora is not None and self.lora.quantize != "none":
            return "cannot shard weights in 4 bits; set `lora.quantize` or `sharding` to none"
        if "vision" in self.trainable:
            return "does not shard the vision tower; leave `vision` out of `trainable`"
        untested = {
            "weights: bfloat16": self.weights == "bfloat16",
            "optimizer: adamw8bit": self.optimizer == "adamw8bit",
            "compile: true": self.compile,
            "cache_features: true": self.cache_features,
            "auxiliary": self.auxiliary is not None,
        }
        found = " and ".join(f"`{setting}`" for setting, given in untested.items() if given)
        return f"was not tested with {found}; set `sharding` to none" if found else None

    @property
    def aligned(self) -> StageAlignment | None:
        """The alignment, unless its weight is 0."""
        return self.alignment if self.alignment and self.alignment.weight > 0 else None

    @property
    def needs_extended(self) -> bool:
        """Whether the training records must have extended answers."""
        aligned = self.aligned is not None and self.aligned.has_extended
        return aligned or self.answers != "original"


class EvaluationSettings(Section):
    """How answers are generated and scored."""

    data: DataSettings | None = None
    """Data to answer; what it does not say is taken from the recipe's own `data`."""
    split: str = "test"
    """Split to answer."""
    batch_size: Count = 32
    """Questions answered at once."""
    max_new_tokens: Count = 64
    """Longest answer in tokens."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Data type of the weights on a CPU; an accelerator answers in bfloat16. `auto` is bfloat16
    where training measures it to be faster. There an answer may depend on those beside it."""
    num_bootstrap_samples: Count = 2000
    """Resamples of an image-clustered interval."""
    num_report_images: Annotated[int, Field(ge=0)] = 12
    """Images with question, answer and prediction in the report."""


class Recipe(Section):
    """A run: one model, and stages that follow one another in the order they are written."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*(/[a-z0-9][a-z0-9_.-]*)*$", max_length=200)
    """Lower-case letters, digits and `_.-`, in parts between `/` that begin with a letter or digit;
    a run's folder is called so where none is given."""
    description: str = ""
    """What the recipe is for; reports begin with it."""
    seed: Seed = 0
    """Seed of weights, data order, dropout and noise."""
    model: ModelSettings
    """What the run starts from."""
    data: DataSettings
    """Data of every stage that does not name its own."""
    text: TextSettings = TextSettings()
    """How records become tokens."""
    stages: dict[Name, StageSettings] = Field(min_length=1)
    """Stages by name, of letters, digits and `_.-`; one that is null is left out, so that a recipe
    can drop its base's."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What is answered and scored at the end."""
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(default=[])
    """Programs that are handed the figures of `log.jsonl` too; never anything of a record. wandb
    sends them to its service, unless WANDB_MODE=offline is set."""

    @model_validator(mode="before")
    @classmethod
    def _complete_stages(cls, values: Any) -> Any:
        """Drop the stages that are null and fill in every stage's data from the recipe's own."""
        if not isinstance(values, dict) or not isinstance(values.get("data"), dict):
            return values
        own = values["data"]
        filled = dict(values)
        if isinstance(values.get("stages"), dict):
            filled["stages"] = {
                name: _with_data(stage, own)
                for name, stage in values["stages"].items()
                if stage is not None
            }
        filled["evaluation"] = _with_data(values.get("evaluation", {}), own)
        return filled

    def stage_data(self, stage: str) -> DataSettings:
        """Data settings of a stage."""
        return self.stages[stage].data or self.data

    @property
    def evaluation_data(self) -> DataSettings:
        """Data settings of the evaluation."""
        return self.evaluation.data or self.data


def _with_data(section: Any, own: dict[str, Any]) -> Any:
    if not isinstance(section, dict):
        return section
    said = section.get("data") or {}
    return section | {"data": own | said if isinstance(said, dict) else said}


def check_recipe(values: Any, where: str, kind: type[Recipe] = Recipe) -> Recipe:
    """Check plain data against the schema; errors name `where` it is from.

    Raises:
        RecipeError: the first fault, with its path and a near name where there is one.
    """
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: a recipe is a mapping of names to values.")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        message, hint = explain(error, kind)
        raise RecipeError(f"{where}: {message}.", hint) from error
