"""Any language model: built from a config, tried, counted, and what training needs to know of it.

Shapes: B sequences, T positions, D width, V pieces, N targets.

An imported class is a ``torch.nn.Module`` whose ``forward`` takes ids, int64 BT, and returns logits BTV: as a
tensor, as the first of a tuple, or as ``logits`` of what it returns. Where these are just what its head makes
of hidden states (the map of ``get_output_embeddings()``, or an attribute ``head`` or ``lm_head``), training
leaves the head to the fused loss. A class may also leave it to that itself, and return hidden states BTD.
"""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from optstudy import config, sizes
from optstudy.config import RunConfig
from optstudy.errors import UserError, nearest
from optstudy.sizes import Size
from optstudy.training import outside
from optstudy.training.llama import Llama
from optstudy.training.model import Transformer

OURS = {"paper": Transformer, "llama": Llama}
TRIED = (2, 8)
"""Sequences and, at most, positions that a model is tried on."""
CAUSAL = 1e-5
"""How much of the largest output may change at earlier positions when a later piece does, by rounding."""
BUILT_TO_TRY = 100_000_000
"""Parameters up to which a model is built before anything runs, to see that it is causal."""
OLDER_KEYS = {"rope_parameters": {"rope_scaling", "rope_theta"}}
"""Keys of Hugging Face configurations -> what they were in older files, which are still read."""


@dataclass(frozen=True)
class LanguageModel:
    """A module, and how its output becomes logits."""

    module: nn.Module
    head: nn.Linear | None
    """What makes logits of the hidden states that the module returns; None: it returns logits."""

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers: what the longest list of modules holds that is in no other list."""
        inner: set[int] = set()
        longest: list[nn.Module] = []
        for module in self.module.modules():
            if isinstance(module, nn.ModuleList) and id(module) not in inner:
                inner |= {id(one) for one in module.modules()}
                longest = max(longest, list(module), key=len)
        return longest

    def logits(self, output: Tensor) -> Tensor:
        """Return logits of what the module returned, as :func:`tensor_of` has it."""
        return output if self.head is None else nn.Linear.forward(self.head, output)


def build(run: RunConfig, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Return a run's model with random initial weights by its seed.

    Raises:
        UserError: a class that cannot be imported or does not take its options, or one whose output is not
            that of a causal language model.
    """
    model = run.model
    if not model.imported:
        ours = OURS[model.name](model, run.seed).to(device)
        return LanguageModel(ours, ours.head)
    torch.manual_seed(run.seed)
    with torch.device(device), _told(model):
        module = _constructed(model).to(dtype)
        built = _understood(module, run)
    torch.manual_seed(run.seed)
    return built


def outline(run: RunConfig) -> LanguageModel:
    """Return a run's model without memory for its weights, and keep its size.

    Kernels of mixtures of experts exist there in bfloat16 alone. A class whose code needs numbers is built as
    it is.

    Raises:
        UserError: see :func:`build`.
    """
    for dtype in (torch.float32, torch.bfloat16):
        try:
            with torch.device("meta"):
                made = build(run, "meta", dtype)
            break
        except UserError:
            continue
    else:
        made = build(run)  # raises the same if it is the user's to mend
    if sizes.size_of(run) is None:
        sizes.keep(run, _counted(made, run))
    return made


def try_out(run: RunConfig) -> LanguageModel:
    """Return :func:`outline`, having seen what can be seen before anything runs.

    Raises:
        UserError: see :func:`build`.
    """
    made, size = outline(run), sizes.size_of(run)
    if run.model.imported and size is not None and size.parameters <= BUILT_TO_TRY:
        build(run)
    return made


def size_of(run: RunConfig) -> Size:
    """Return the size of a run's model, counted if that was not done yet.

    Raises:
        UserError: see :func:`build`.
    """
    if sizes.size_of(run) is None:
        outline(run)
    found = sizes.size_of(run)
    assert found is not None
    return found


def tensor_of(output: Any) -> Tensor | None:
    """Return the tensor of what a module returned: it, the first of a tuple, or its ``logits``."""
    if isinstance(output, (tuple, list)):
        output = output[0] if output else None
    output = getattr(output, "logits", output)
    return output if isinstance(output, Tensor) else None


@contextmanager
def _told(model: config.Model) -> Iterator[None]:
    """Raise what a model's code raises as the user's to mend, with its place."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        said = f"model {model.name!r}: {outside.said_where(error, whole=True)}"
        raise UserError(said, "model.name", model.name) from None


def _constructed(model: config.Model) -> nn.Module:
    """Return an instance of the class at an import path."""
    cls = outside.load(model.name, "model", nn.Module)
    if getattr(cls, "config_class", None) is not None:
        return _of_hugging_face(cls, model)
    parameters = inspect.signature(cls).parameters
    any_other = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = {name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if "vocab_size" not in known and not any_other:
        raise UserError(
            f"model {model.name!r}: its constructor must take vocab_size", "model.name", model.name
        )
    for key, value in model.options.items():
        if key not in known and not any_other:
            raise _unknown(model, key, value, known - {"vocab_size"})
    required = {name for name in known if parameters[name].default is inspect.Parameter.empty}
    for key in sorted(required - model.options.keys() - {"vocab_size"}):
        raise UserError(f"model.options.{key}: missing: {model.name} needs it", "model.options")
    made: nn.Module = cls(vocab_size=model.vocab_size, **model.options)
    return made


def _of_hugging_face(cls: Any, model: config.Model) -> nn.Module:
    """Return a Hugging Face model of a configuration of the class's own kind."""
    kind = cls.config_class
    known = {*inspect.signature(kind).parameters, *getattr(kind, "attribute_map", ())}
    known |= {old for key in known & OLDER_KEYS.keys() for old in OLDER_KEYS[key]}
    for key, value in model.options.items():
        if key not in known:
            raise _unknown(model, key, value, known)
    beyond = {
        key: None
        for key in ("bos_token_id", "eos_token_id", "pad_token_id")
        if (piece := model.options.get(key, getattr(kind, key, None))) is not None
        and not (isinstance(piece, int) and piece < model.vocab_size)
    }
    made = kind(vocab_size=model.vocab_size, **{**model.options, **beyond})
    # without a cache, positions are looked at for packed sequences, which takes numbers
    made.use_cache = torch.get_default_device().type == "meta"
    module: nn.Module = cls(made)
    return module.train()


def _unknown(model: config.Model, key: str, value: Any, known: set[str]) -> UserError:
    hint = nearest(key, known)
    hint = hint if len(known) < 30 or "mean" in hint else ""
    return UserError(f"unknown option {key!r} of {model.name}{hint}", f"model.options.{key}", value)


def _understood(module: nn.Module, run: RunConfig) -> LanguageModel:
    """Try a module, and tell what its output is.

    Raises:
        UserError: it is neither logits nor hidden states of every position, or not causal.
    """
    model, pieces = run.model, run.model.vocab_size
    shape = TRIED[0], min(TRIED[1], run.data.sequence_length)
    x_BT = (torch.arange(shape[0] * shape[1]) % pieces).view(shape)
    head, made = _head_of(module, pieces), list[Any]()
    hook = None if head is None else head.register_forward_hook(lambda *told: made.append(told[2]))
    module.eval()
    with torch.no_grad():
        output = module(x_BT)
        y_BTX = tensor_of(output)
        hidden = head is not None and not made and y_BTX is not None and y_BTX.shape[-1] == head.in_features
        width = head.in_features if head is not None and hidden else pieces
        if y_BTX is None or y_BTX.shape != (*shape, width):
            came = f"a {type(output).__name__}" if y_BTX is None else f"shape {tuple(y_BTX.shape)}"
            raise UserError(
                f"model {model.name!r}: forward(ids) must return logits of shape {(*shape, pieces)} for ids "
                f"of shape {shape}, not {came}",
                "model.name",
                model.name,
            )
        other_BT = torch.cat([x_BT[:, :-1], (x_BT[:, -1:] + 1) % pieces], dim=1)
        _check_causal(y_BTX, tensor_of(module(other_BT)), model)
    _check_whole(module, run)
    module.train()
    if hook is not None:
        hook.remove()
    if head is not None and not hidden and made[0] is y_BTX:
        head.forward = _same  # type: ignore[method-assign, assignment]
        return LanguageModel(module, head)
    return LanguageModel(module, head if hidden else None)


def _same(h: Tensor) -> Tensor:
    """Stand for a head that the fused loss applies; FSDP warns of views, such as of the last positions."""
    return h.clone() if h._is_view() else h


def _head_of(module: nn.Module, pieces: int) -> nn.Linear | None:
    """Return the plain linear map to the vocabulary, if there is one."""
    told: Any = getattr(module, "get_output_embeddings", lambda: None)
    found: tuple[Any, ...] = (told(), getattr(module, "head", None), getattr(module, "lm_head", None))
    for head in found:
        if isinstance(head, nn.Linear):
            one: Any = head
            plain = type(one).forward is nn.Linear.forward and one.bias is None
            return head if plain and head.out_features == pieces else None
    return None


def _check_causal(one: Tensor, other: Tensor | None, model: config.Model) -> None:
    """Refuse a model whose output at a position depends on pieces after it; without numbers, do nothing."""
    if one.is_meta or other is None or one.shape != other.shape or one.shape[1] < 2:
        return
    change = (one[:, :-1] - other[:, :-1]).abs().max()
    if bool(change > CAUSAL * one.abs().max()):
        said = f"model {model.name!r}: its output at a position depends on later pieces: it is not causal"
        raise UserError(said, "model.name", model.name)


def _check_whole(module: nn.Module, run: RunConfig) -> None:
    """Refuse a model that cannot train on a sequence of the run's length with its last piece.

    Without numbers, nothing is known of lengths and pieces.
    """
    model, length, pieces = run.model, run.data.sequence_length, run.model.vocab_size
    said = f"model {model.name!r}"
    first = next(module.parameters(), None)
    if first is None:
        raise UserError(f"{said} has no parameters to train", "model.name", model.name)
    if first.is_meta:
        return
    x_BT = (pieces - 1 - torch.arange(length) % pieces).view(1, length)
    try:
        y_BTX = tensor_of(module(x_BT))
    except (Exception, SystemExit) as error:
        why = outside.said_where(error, whole=True)
        raise UserError(
            f"{said} fails on {length} pieces (data.sequence_length) from 0 to {pieces - 1} "
            f"(model.vocab_size): {why}", "model.name", model.name,
        ) from None  # fmt: skip
    if y_BTX is None or not y_BTX.is_floating_point():
        came = "nothing" if y_BTX is None else str(y_BTX.dtype).removeprefix("torch.")
        raise UserError(
            f"{said}: forward(ids) must return real numbers, not {came}", "model.name", model.name
        )
    if not y_BTX.requires_grad and any(p.requires_grad for p in module.parameters()):
        raise UserError(
            f"{said}: what forward(ids) returns has no gradient; is it detached, or made under no_grad()?",
            "model.name",
            model.name,
        )


def _grouped(rows: tuple[int, ...], experts: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Return the operations of the products of experts with the rows that are sent to them."""
    return 2 * math.prod(rows) * experts[-1]


def _counted(made: LanguageModel, run: RunConfig) -> Size:
    """Count parameters and FLOPs of a forward pass over one sequence; attention counts whole.

    Where the code cannot run without numbers, FLOPs are 2 per weight of every matrix but the embeddings.
    """
    module, length = made.module, run.data.sequence_length
    parameters = list(module.parameters())
    device = next(iter(parameters)).device
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten._grouped_mm: _grouped})
    try:
        with torch.no_grad(), torch.device(device), sdpa_kernel(SDPBackend.MATH), counter:
            output = tensor_of(module(torch.zeros(1, length, dtype=torch.int64)))
            assert output is not None
            made.logits(output)
        flops = counter.get_total_flops() / length
    except Exception:
        tables = {id(one.weight) for one in module.modules() if isinstance(one, nn.Embedding)}
        tables -= {id(made.head.weight)} if made.head is not None else set()
        flops = 2 * sum(p.numel() for p in parameters if p.ndim > 1 and id(p) not in tables)
    return Size(sum(p.numel() for p in parameters), flops)
