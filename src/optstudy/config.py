"""One run as data: a frozen, strict and complete config whose hash is the run's id.

A config is merged from layers (scale, study, point, ``--set``; last wins), then validated once. The validated
config is recorded, so it contains every value that ran. Imports no torch.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, model_validator
from pydantic_core import InitErrorDetails

from optstudy import identity, recipes
from optstudy.errors import (
    TOLD,
    Count,
    Strict,
    UserError,
    missing,
    nearest,
    refuse,
    shown,
    unit,
    validate,
    wrong,
)
from optstudy.record import leaves

NUMERICS: Literal[1] = 1
"""Increased only when a change of the code alters results: runs with an older number are not reused."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


WSD_DECAY = 0.2
"""Share of the steps in which the rate of a ``wsd`` schedule falls, where none is given."""


def _flat(tree: Any) -> Any:
    """Return names with dots, which merging has nested, as they were written."""
    return dict(leaves(tree)) if isinstance(tree, Mapping) else tree


class Data(Strict):
    """The text and how it is tokenized."""

    corpus: str
    """A name from ``optstudy data list``; ``path:`` and a file or folder; or a dataset of the Hugging
    Face hub, ``hf:OWNER/NAME@COMMIT``."""
    fingerprint: str
    """Hash of the cleaned text. Filled in."""
    tokenizer: str
    """``bpe-N``: a byte-level BPE with a vocabulary of N, trained on the corpus; ``t5``; ``gpt2``; a file;
    or ``hf:OWNER/NAME@COMMIT``."""
    tokenizer_fingerprint: str | None = None
    """Hash of a tokenizer file, which replaces its name in the id; null: no file. Filled in."""
    text_key: str = "text"
    """Key of a document's text in JSON lines, and in rows of the hub."""
    end_token: str | None = None
    """The tokenizer's piece that ends documents; null: ``</s>``, ``<|endoftext|>`` or another usual one."""
    tokens: Annotated[int, Field(gt=0, le=10**15), unit("tokens")] | None = None
    """Tokens of the train split to use, from its start; null: all."""
    sequence_length: Annotated[int, Field(ge=2, le=10**7), unit("tokens")]
    """Tokens per sequence; the loss has one fewer target."""


class Sizes(NamedTuple):
    """Sizes of the models that a scale has sizes for."""

    width: int
    layers: int
    heads: int


class Model(Strict):
    """Which language model, and how large. A key that a model does not have is null."""

    name: str = "paper"
    """``paper``: the decoder-only transformer of Appendix B; ``llama``; ``transformers.LlamaForCausalLM`` or
    another causal language model of Hugging Face; or the import path of a class of your own."""
    vocab_size: Annotated[Count, unit("rows")]
    """Rows of embedding and head; at least the tokenizer's vocabulary size."""
    d_model: Annotated[int, Field(gt=0, le=10**6), unit("features")] | None = None
    """Width of the residual stream: an even multiple of ``n_heads``. Of ``paper`` and ``llama``, as all keys
    down to ``tie_embeddings``."""
    n_layers: Annotated[int, Field(gt=0, le=10**4), unit("blocks")] | None = None
    """Number of blocks, each with attention and MLP."""
    n_heads: Annotated[Count, unit("heads")] | None = None
    """Attention heads per block, each ``d_model / n_heads`` wide."""
    qk_norm: bool | None = True
    """LayerNorm over the full width of queries and keys, before the head split. Of ``paper`` alone."""
    scale_attention_by_layer: bool | None = False
    """Multiply attention logits by 1 / (layer index + 1), as Liu et al.'s Sophia runs did (Figure 18). Of
    ``paper`` alone."""
    n_kv_heads: Annotated[Count, unit("heads")] | None = None
    """Heads of keys and values, which divide ``n_heads``; by default half of them. Of ``llama`` alone."""
    tie_embeddings: bool | None = None
    """Whether the head's weight is the embedding's; by default false. Of ``llama`` alone."""
    config: str | None = None
    """A Hugging Face ``config.json``: ``options`` go over what it says, and its vocabulary does not count."""
    options: dict[str, Any] = {}
    """What an imported class is told besides ``vocab_size``: arguments of your own class, or keys of a
    Hugging Face configuration."""
    code: str | None = None
    """Hash of the source of a class that comes in no installed package; null: there is none. Filled in."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        name = data.get("name", "paper")
        if name == "paper" or not isinstance(name, str):
            return data
        filled: dict[str, Any] = {"qk_norm": None, "scale_attention_by_layer": None}
        if name == "llama":
            heads = data.get("n_heads")
            filled["n_kv_heads"] = max(1, heads // 2) if isinstance(heads, int) else None
            filled["tie_embeddings"] = False
        return {**data, **{key: value for key, value in filled.items() if data.get(key) is None}}

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        refuse([self._unnamed()] if self.imported and not _IMPORT_PATH.fullmatch(self.name) else [])
        own = KEYS.get(self.name, IMPORTED)
        refuse([missing((key,), self) for key in own if getattr(self, key) is None and key not in OPTIONAL])
        instead = "; its own keys stand under model.options" if self.imported else ""
        foreign = {key for keys in (*KEYS.values(), IMPORTED) for key in keys}.difference(own)
        refuse(
            [
                wrong((key,), f"{self.name} has no such key{instead}", getattr(self, key), TOLD)
                for key in sorted(foreign)
                if getattr(self, key) not in (None, {})
            ]
        )
        if "vocab_size" in self.options:
            said = "no option: set model.vocab_size"
            refuse([wrong(("options", "vocab_size"), said, self.options["vocab_size"], TOLD)])
        refuse(
            [
                wrong(("options", key), "must be finite", value)
                for key, value in self.options.items()
                if not recipes.finite(value)
            ]
        )
        if not self.imported:
            width, _, heads = self.sizes
            if width % (2 * heads):
                raise ValueError(f"d_model ({width}) must be n_heads ({heads}) times an even one")
            if heads % (self.n_kv_heads or heads):
                raise ValueError(f"n_kv_heads ({self.n_kv_heads}) must divide n_heads ({heads})")
        return self

    def _unnamed(self) -> InitErrorDetails:
        said = f"unknown model {self.name!r}{nearest(self.name, KEYS)}"
        return wrong(("name",), f"{said} (or give the import path of a class: MODULE.CLASS)", self.name, TOLD)

    @property
    def sizes(self) -> Sizes:
        """Sizes of ``paper`` and ``llama``."""
        assert self.d_model is not None and self.n_layers is not None and self.n_heads is not None
        return Sizes(self.d_model, self.n_layers, self.n_heads)

    @property
    def imported(self) -> bool:
        """Whether it is a class that is imported by its path."""
        return self.name not in KEYS

    @property
    def targets(self) -> list[str]:
        """Import path of its class, if it is imported."""
        return [self.name] if self.imported else []


_SIZED = ("d_model", "n_layers", "n_heads")
KEYS: Mapping[str, tuple[str, ...]] = {
    "paper": (*_SIZED, "qk_norm", "scale_attention_by_layer"),
    "llama": (*_SIZED, "n_kv_heads", "tie_embeddings"),
}
"""Keys of the models that come with optstudy, besides those of all models."""
IMPORTED = ("config", "options", "code")
OPTIONAL = ("config", "code")
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


class Optimizer(Strict):
    """The optimizer and its settings. ``options`` is complete: omitted ones are filled in."""

    name: str
    """A name from ``optstudy optimizers``, or the import path of a ``torch.optim.Optimizer``."""
    lr: Annotated[PositiveFloat, unit("the optimizer's own")]
    """Peak learning rate."""
    weight_decay: Annotated[NonNegativeFloat, unit("per step")] = 0.0
    """Independent decay λ: each step multiplies parameters by 1 - λ lr_t / lr."""
    options: dict[str, Any] = {}
    """The optimizer's own options, by name: see its page."""
    roles: dict[str, dict[str, Any]] = {}
    """Options of the parameters that play one role, over ``options``; and their own ``lr``, ``weight_decay``,
    ``name`` of an optimizer, and ``train: false``."""
    tied: Literal["embedding", "head"] = "embedding"
    """The role of a weight that is embedding and head at once."""
    named: Annotated[dict[str, str], BeforeValidator(_flat)] = {}
    """Roles by parameter name, before all else; ``*`` stands for a part between dots."""
    code: str | None = None
    """Hash of the source of classes that are in no installed package; null: there are none. Filled in."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("name"), str):
            options, roles = recipes.complete(data["name"], data.get("options", {}), data.get("roles", {}))
            return {**data, "options": options, "roles": roles}
        return data

    @model_validator(mode="after")
    def _named_roles(self) -> Self:
        for pattern, role in self.named.items():
            if role not in recipes.ROLES:
                said = f"unknown role {role!r}{nearest(role, recipes.ROLES)}"
                refuse([wrong(("named", pattern), said, role, TOLD)])
        return self

    @property
    def targets(self) -> list[str]:
        """Import paths of all optimizer classes used."""
        names = [self.name, *(own["name"] for own in self.roles.values() if "name" in own)]
        return sorted({recipes.spec_of(name).target for name in names})


class Schedule(Strict):
    """Learning rate over the run: freeze, linear warm-up, then the course that ``kind`` names."""

    kind: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    """After the warm-up: half a ``cosine`` down to ``final``, a line down to it, the peak and over the last
    steps a line down to it (``wsd``), or the peak to the end."""
    warmup: Annotated[Fraction, unit("of the steps")] = 0.1
    """Share of the steps (after any freeze) used for the warm-up."""
    warmup_start: Annotated[Fraction, unit("of the peak")] = 0.1
    """Share of the peak at the start of the warm-up."""
    final: Annotated[Fraction, unit("of the peak")] = 0.1
    """Share of the peak that the run ends at; 0: the last step changes nothing. 1 where ``kind`` is
    ``constant``."""
    decay: Annotated[float, Field(gt=0, le=1), unit("of the steps")] | None = None
    """Of ``wsd`` alone: the last steps, in which the rate falls; null: a fifth."""
    freeze_steps: Annotated[int, Field(ge=0, le=10**9), unit("steps")] = 0
    """F, first steps that estimate second moments, added to ``steps``. As in the released code, the first
    F - 1 have learning rate 0, and step F already has the rate at the start of the warm-up."""

    @model_validator(mode="before")
    @classmethod
    def _constant_ends_at_the_peak(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("kind") == "constant":
            return {"final": 1.0, **data}
        return data

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        if self.kind == "constant" and self.final != 1:
            raise ValueError(f"final ({self.final:g}) must be 1 where kind is constant; leave it out")
        if self.kind != "wsd" and self.decay is not None:
            raise ValueError(f"decay ({self.decay:g}) is of kind wsd alone; leave it out")
        if self.kind == "wsd" and self.warmup + self.decay_share > 1:
            raise ValueError(f"warmup ({self.warmup:g}) and decay ({self.decay_share:g}) must not exceed 1")
        return self

    @property
    def decay_share(self) -> float:
        """Share of the steps in which the rate of ``wsd`` falls."""
        return WSD_DECAY if self.decay is None else self.decay


class Training(Strict):
    """Length, batch size and precision."""

    steps: Annotated[Count, unit("steps")]
    """Optimizer steps after any freeze."""
    batch_size: Annotated[int, Field(gt=0, le=10**7), unit("sequences")]
    """Sequences per step."""
    micro_batch_size: Annotated[int, Field(gt=0, le=10**7), unit("sequences")] | None = None
    """Sequences per forward pass; null: the whole batch."""
    z_loss: Annotated[NonNegativeFloat, unit("nats")] = 1e-4
    """Coefficient of mean(logsumexp(logits)^2), in training only."""
    clip_norm: Annotated[PositiveFloat, unit("norm")] | None = 1.0
    """Global norm to which gradients are clipped; null: no clipping."""
    hessian_interval: Annotated[Count, unit("steps")] = 10
    """Steps between updates of a Hessian estimate, for optimizers that keep one (Sophia)."""
    effective_lr: bool = False
    """Record quantiles of the effective learning rates during training (Figure 2)."""
    precision: Literal["float32", "bfloat16", "float64"]
    """``bfloat16``: autocast over float32 weights and state."""
    threads: Annotated[int, Field(gt=0, le=4096), unit("threads")]
    """CPU threads of each process of a run."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """If ``torchrun`` starts several processes: each holds the whole model (``ddp``), or a part of every
    parameter, gradient and state (``fsdp``), for models that do not fit."""


class Validation(Strict):
    """How the validation loss (cross-entropy alone, nats per token) is measured."""

    sequences: Annotated[Count, unit("sequences")]
    """Number of sequences from the start of the validation split."""
    points: Annotated[int, Field(gt=0, le=10**5), unit("evaluations")] = 10
    """Evenly spaced evaluations over the run, in addition to the one before the first step."""


DECILES = 10
"""Groups of tokens by frequency, each about a tenth of the text: see :attr:`Watch.deciles`."""


class Watch(Strict):
    """What a run records in addition to its losses, and where else it is shown; changes no result."""

    norms: bool = False
    """Record norms of gradient, update and weights by role, once per row of ``metrics.jsonl``."""
    moments: bool = False
    """Record, once per row and by role, the signal-to-noise ratio of Adam's second moments along each axis,
    and how far Adam's step is from Signum's and Adalayer*'s."""
    deciles: bool = False
    """Record the validation loss by the frequency of the token to predict, in ten groups as common."""
    tensorboard: bool = False
    """Write TensorBoard event files to the run's folder; needs ``optstudy[tensorboard]``."""
    wandb: str | None = None
    """Weights & Biases project to report to; needs ``optstudy[wandb]``."""


class RunConfig(Strict):
    """One training run."""

    scale: str
    """The scale it is based on: a label, not part of the id."""
    seed: Annotated[Seed, unit("none")] = 0
    """Seed of the initial weights and the order of the data."""
    data: Data
    model: Model
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    training: Training
    validation: Validation
    watch: Watch = Watch()
    numerics: Literal[1] = NUMERICS
    """Version of the computation. Filled in."""

    @model_validator(mode="before")
    @classmethod
    def _scheduled_as_the_optimizer_asks(cls, data: Any) -> Any:
        """Fill in what a preset asks of the schedule, such as a constant rate; what is given stays."""
        chosen = data.get("optimizer") if isinstance(data, Mapping) else None
        name = chosen.get("name") if isinstance(chosen, Mapping) else None
        asked = recipes.schedule_of(name) if isinstance(name, str) else {}
        given = data.get("schedule", {}) if asked else None
        return {**data, "schedule": {**asked, **given}} if isinstance(given, Mapping) else data

    @model_validator(mode="after")
    def _optimizer_fits(self) -> Self:
        parts = {"schedule": vars(self.schedule), "training": vars(self.training), "data": vars(self.data)}
        shapes = shapes_by_role(self.model) if self.model.name == "paper" else {}  # others are built to see
        recipes.check_fit(vars(self.optimizer), recipes.lent(parts), shapes)
        return self

    @property
    def id(self) -> str:
        """The hash of everything that decides the result: twelve hexadecimal digits."""
        return identity.run_id(self.model_dump(mode="json"))

    @property
    def total_steps(self) -> int:
        """Optimizer steps, including any freeze."""
        return self.schedule.freeze_steps + self.training.steps

    @property
    def tokens(self) -> int:
        """Tokens read in the whole run."""
        return self.total_steps * self.training.batch_size * self.data.sequence_length


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings, last wins; keys may be dotted paths (``optimizer.lr``).

    Raises:
        UserError: a later layer has keys below one to which an earlier layer gives a plain value, or a key
            has nothing on one side of a dot.
    """
    return _merged(layers, "")


def _merged(layers: Iterable[Mapping[str, Any]], above: str) -> dict[str, Any]:
    """Merge; ``above``: the parent keys, each with a trailing dot, for errors."""
    result: dict[str, Any] = {}
    for layer in layers:
        for dotted, value in layer.items():
            whole = f"{above}{dotted}"
            *parents, leaf = str(dotted).split(".")
            if "" in (*parents, leaf):
                said = f"{whole!r}: a key needs a name on each side of its dots"
                raise UserError(said, whole or "''", value)
            node = result
            for depth, key in enumerate(parents, 1):
                inner = node.get(key)
                if inner is not None and not isinstance(inner, Mapping):
                    parent = above + ".".join(parents[:depth])
                    raise UserError(f"{whole}: {parent} must be a mapping, not {shown(inner)}", whole, value)
                node[key] = node = dict(inner or {})
            if isinstance(value, Mapping):
                before = node.get(leaf)
                if before is not None and not isinstance(before, Mapping):
                    said = f"{whole}: a mapping cannot replace {shown(before)}"
                    raise UserError(said, whole, value)
                node[leaf] = _merged((before or {}, value), f"{whole}.")
            else:
                node[leaf] = value
    return result


def resolve(*layers: Mapping[str, Any]) -> RunConfig:
    """Merge layers, last wins, and validate the whole.

    Raises:
        UserError: names every wrong key, what came and what was allowed.
    """
    return validate(RunConfig, merge(*layers))


SMALL = 1_000_000
"""Parameters below which a step is too short to fill a GPU, or to gain from compiling or bfloat16."""
MLP_RATIO = 4

Shape = tuple[int, ...]


def shapes_by_role(model: Model) -> dict[str, list[Shape]]:
    """Return the shapes of a transformer's weights, by role; of an imported class nothing is known."""
    if model.imported:
        return {}
    d, layers, heads = model.sizes
    table = (model.vocab_size, d)
    if model.name == "llama":
        hidden, keys = gated_width(d), d // heads * (model.n_kv_heads or heads)
        return {
            "embedding": [table],
            **({} if model.tie_embeddings else {"head": [table]}),
            "norm": [(d,)] * (2 * layers + 1),
            "qkv": [(d + 2 * keys, d)] * layers,
            "attention_out": [(d, d)] * layers,
            "mlp_in": [(hidden, d)] * (2 * layers),
            "mlp_out": [(d, hidden)] * layers,
        }
    return {
        "embedding": [table],
        "head": [table],
        "norm": [(d,)] * ((4 if model.qk_norm else 2) * layers + 1),
        "qkv": [(3 * d, d)] * layers,
        "attention_out": [(d, d)] * layers,
        "mlp_in": [(MLP_RATIO * d, d)] * layers,
        "mlp_out": [(d, MLP_RATIO * d)] * layers,
    }


def gated_width(d: int) -> int:
    """Return the width of a SwiGLU: 8/3 d, rounded up to a multiple of 8, so as many weights as a GELU's."""
    return 8 * -(-d // 3)


def parameter_count(model: Model) -> int:
    """Number of parameters of ``paper`` or ``llama``, including embedding and head."""
    return sum(math.prod(shape) for shapes in shapes_by_role(model).values() for shape in shapes)


def forward_flops(model: Model, sequence_length: int) -> int:
    """Floating-point operations of matrix products per token, forward; training takes three times as many.

    2 per weight of a matrix, without the embedding, and 2 L D T for causal attention: half of the count of
    Chowdhery et al. 2022 ("PaLM", appendix B), as a position only attends to earlier ones. Of ``paper`` and
    ``llama``.
    """
    matrices = [shape for some in shapes_by_role(model).values() for shape in some if len(shape) == 2]
    weights = sum(map(math.prod, matrices)) - (0 if model.tie_embeddings else math.prod(matrices[0]))
    width, layers, _ = model.sizes
    return 2 * weights + 2 * layers * width * sequence_length
