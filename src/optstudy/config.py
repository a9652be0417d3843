"""One run as data: a frozen, strict, complete tree whose hash is the run's id.

A config is built from layers (scale, study, point, ``--set``), later ones winning, then validated once.
What is recorded is the validated tree, so it holds every value that ran. Imports no torch.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from optstudy import optimizers
from optstudy.errors import UserError, nearest, shortened

NUMERICS: Literal[1] = 1
"""Raised only when a change to the code alters results: recorded runs of an older number are not reused."""

NOT_IN_ID = (("scale",), ("data", "corpus"), ("watch",), ("training", "parallel"))
"""Names, places and onlookers; ``data.fingerprint`` says what the text is, wherever it lies.

How a run is spread over processes is no part of its id, as their number is none: either may change from one
checkpoint to the next, and results stay the same up to rounding.
"""

MOST_SHOWN = 80
"""Characters of a wrong value that an error shows."""

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """Frozen; unknown keys, NaN, infinities and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Strict):
    """Which text, cut how."""

    corpus: str
    """A name of :data:`optstudy.text.CORPORA`, or ``path:`` and a file or folder."""
    fingerprint: str
    """Hash of the cleaned text; filled in by :func:`optstudy.text.fingerprint`."""
    tokenizer: str
    """``bpe-N``: a byte-level BPE of N pieces trained on the corpus; ``t5``."""
    tokens: Count | None = None
    """Tokens of the train split to use, from its start; null: all."""
    sequence_length: Annotated[int, Field(ge=2)]
    """Tokens per sequence; the loss has one target fewer."""


class Model(Strict):
    """The paper's decoder-only transformer (Appendix B)."""

    vocab_size: Count
    """Rows of embedding and head; at least the tokenizer's pieces."""
    d_model: Count
    n_layers: Count
    n_heads: Count
    qk_norm: bool = True
    """LayerNorm over the full width of queries and keys, before the head split."""
    scale_attention_by_layer: bool = False
    """Multiply attention logits by 1 / (layer index + 1), as Liu et al.'s Sophia runs did (Figure 18)."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.d_model % (2 * self.n_heads):
            raise ValueError(f"d_model ({self.d_model}) must be n_heads ({self.n_heads}) times an even one")
        return self


class Optimizer(Strict):
    """Which rule, at what setting. ``options`` is complete: what a user leaves out is filled in."""

    name: str
    """A name of ``optstudy optimizers``, or the import path of a ``torch.optim.Optimizer``."""
    lr: Positive
    """Peak learning rate."""
    weight_decay: NonNegative = 0.0
    """Independent decay λ: each step multiplies parameters by 1 - λ lr_t / lr."""
    options: dict[str, Any] = {}
    """The rule's keyword arguments."""
    roles: dict[str, dict[str, Any]] = {}
    """Options of the parameters that play one role, over ``options``."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("name"), str):
            options, roles = optimizers.complete(
                data["name"], data.get("options") or {}, data.get("roles") or {}
            )
            return {**data, "options": options, "roles": roles}
        return data


class Schedule(Strict):
    """Learning rate over the run: freeze, linear warm-up, cosine decay."""

    warmup: Fraction = 0.1
    """Share of the steps (after any freeze) spent warming up."""
    warmup_start: Fraction = 0.1
    """Share of the peak that the warm-up starts from."""
    final: Fraction = 0.1
    """Share of the peak that the cosine ends at."""
    freeze_steps: Annotated[int, Field(ge=0)] = 0
    """F, first steps that estimate second moments, added to ``steps``. As in the released code, the first
    F - 1 have learning rate 0, and the F-th already has the rate that the warm-up starts from."""


class Training(Strict):
    """How long, over how much, at what precision."""

    steps: Count
    """Optimizer steps after any freeze."""
    batch_size: Count
    """Sequences per step."""
    micro_batch_size: Count | None = None
    """Sequences per forward pass; null: the whole batch."""
    z_loss: NonNegative = 1e-4
    """Coefficient of mean(logsumexp(logits)^2), in training only."""
    clip_norm: Positive | None = 1.0
    """Global gradient norm that steps are clipped to; null: no clipping."""
    hessian_interval: Count = 10
    """Steps between refreshes of a Hessian estimate, for an optimizer that keeps one (Sophia)."""
    effective_lr: bool = False
    """Record quantiles of the effective learning rates through training (Figure 2)."""
    precision: Literal["float32", "bfloat16", "float64"]
    """``bfloat16``: autocast over float32 weights and state."""
    threads: Count
    """CPU threads of each process of a run."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Where ``torchrun`` starts several processes: each holds the whole model (``ddp``), or a part of every
    parameter, gradient and state (``fsdp``), for models that do not fit."""


class Validation(Strict):
    """How the validation loss (cross-entropy alone, nats per token) is taken."""

    sequences: Count
    """Sequences of the validation split, from its start."""
    points: Count = 10
    """Evenly spaced evaluations over the run, besides the one before the first step."""


class Watch(Strict):
    """What is recorded of a run beside its losses, and where else it is shown; changes no result."""

    norms: bool = False
    """Record norms of gradient, update and weights by role, once per row of ``metrics.jsonl``."""
    tensorboard: bool = False
    """Write TensorBoard event files to the run's folder; needs ``optstudy[tensorboard]``."""
    wandb: str | None = None
    """Project of Weights & Biases to report to; needs ``optstudy[wandb]``."""


class RunConfig(Strict):
    """One training run."""

    scale: str
    """The scale it was made from: a label, no part of the id."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Initial weights and order of the data."""
    data: Data
    model: Model
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    training: Training
    validation: Validation
    watch: Watch = Watch()
    numerics: Literal[1] = NUMERICS

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits: the hash of everything that decides the result."""
        return run_id(self.model_dump(mode="json"))

    @property
    def total_steps(self) -> int:
        """Optimizer steps, freeze included."""
        return self.schedule.freeze_steps + self.training.steps

    @property
    def tokens(self) -> int:
        """Tokens read in the whole run."""
        return self.total_steps * self.training.batch_size * self.data.sequence_length


def run_id(config: Mapping[str, Any]) -> str:
    """Hash a dumped config, leaving out :data:`NOT_IN_ID`."""
    return _hashed(_canonical(config))


def ids_by_seed(config: RunConfig) -> Callable[[int], str]:
    """Return what gives the id of a config's run with any seed; the rest of it is dumped only once."""
    parts = _canonical(config.model_dump(mode="json"))
    return lambda seed: _hashed({**parts, "seed": f'"seed":{seed}'})


def _canonical(config: Mapping[str, Any]) -> dict[str, str]:
    """The JSON of each part of a dumped config that decides the result, its key included."""
    tree = dict(config)
    for *parents, leaf in NOT_IN_ID:
        node = tree
        for key in parents:
            node[key] = node = dict(node[key])
        node.pop(leaf, None)
    return {key: f'"{key}":{_ENCODER.encode(tree[key])}' for key in sorted(tree)}


def _hashed(parts: Mapping[str, str]) -> str:
    return hashlib.sha256(f"{{{','.join(parts.values())}}}".encode()).hexdigest()[:12]


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings, later ones winning; keys may be dotted paths (``optimizer.lr``)."""
    result: dict[str, Any] = {}
    for layer in layers:
        for dotted, value in layer.items():
            *parents, leaf = str(dotted).split(".")
            node = result
            for key in parents:
                child = node.get(key)
                node[key] = child = dict(child) if isinstance(child, Mapping) else {}
                node = child
            if isinstance(value, Mapping):
                old = node.get(leaf)
                node[leaf] = merge(old if isinstance(old, Mapping) else {}, value)
            else:
                node[leaf] = value
    return result


def resolve(*layers: Mapping[str, Any]) -> RunConfig:
    """Merge layers, later ones winning, and validate the whole.

    Raises:
        UserError: naming every wrong key, what came and what was allowed.
    """
    return validate(RunConfig, merge(*layers))


def validate(kind: type[M], data: Any, where: str = "") -> M:
    """Validate ``data``, with errors as a :class:`UserError` that names the key and the nearest valid one."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        prefix = f"{where}: " if where else ""
        found = _unique(error.errors())
        said = [explain(e, e["loc"], _fields(kind, e["loc"][:-1]), kind.__name__) for e in found]
        raise UserError(prefix + "; ".join(said)) from None


def _unique(errors: Iterable[Any]) -> list[Any]:
    return list({".".join(map(str, e["loc"])) + e["type"]: e for e in errors}.values())


def explain(error: Any, loc: Sequence[Any], allowed: Iterable[str], whole: str) -> str:
    """Say one of pydantic's errors in a line: the key, what came, what was allowed.

    Args:
        error: one of ``ValidationError.errors()``.
        loc: where, from the root.
        allowed: keys beside the wrong one.
        whole: what the root is called.
    """
    key = ".".join(map(str, loc)) or whole
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}{nearest(str(loc[-1]), allowed)}"
    if error["type"] == "missing":
        return f"{key}: missing, give it a value"
    message = error["msg"].removeprefix("Value error, ")
    came = error["input"]
    shown = "" if isinstance(came, (Mapping, BaseModel)) else f", not {shortened(repr(came), MOST_SHOWN)}"
    return f"{key}: {message[:1].lower()}{message[1:]}{shown}"


def _fields(kind: type[BaseModel], loc: Sequence[Any]) -> list[str]:
    for part in loc:
        field = kind.model_fields.get(part)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        kind = annotation
    return list(kind.model_fields)
