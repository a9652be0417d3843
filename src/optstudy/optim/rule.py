"""The one optimizer loop: a ``torch.optim.Optimizer`` around a rule, which is a function of tensors.

A rule defines in :meth:`Rule.update` what one step does to one parameter and its state, in place, and in
:meth:`Rule.numbers` which numbers it uses. This module does the rest: parameter groups and their checks,
closures, the step count, the dtype of state, sharded parameters, and compiling.
"""

import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar, NoReturn

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optstudy.errors import explain, nearest
from optstudy.optim.base import Base
from optstudy.optim.blocks import Shape
from optstudy.optim.compiled import LARGE, Compiled, Job, run, wide
from optstudy.optim.options import Options
from optstudy.optim.sharded import localise, zeros

NOT_OPTIONS = {"params", "param_names", "name", "role", "layout", "peak_lr", "initial_lr", "swa_lr"} | {
    f"{end}_{what}" for end in ("min", "max", "base") for what in ("lr", "momentum")
}
"""Keys of a group that are not options: names, the layout of weights, and entries of torch's schedulers."""


class Rule(Base):
    """A ``torch.optim.Optimizer`` whose subclass defines :meth:`numbers` and :meth:`update`.

    Args:
        params: parameters, or groups of them.
        lr: learning rate; a float or a tensor of one element.
        options: the fields of the class's ``Options``; each can be set per group.

    Raises:
        ValueError: an unknown option, a wrong value, or a parameter whose shape the optimizer does not
            support.
    """

    options: ClassVar[type[Options]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give the class a signature from its options, and add their descriptions to its docstring."""
        super().__init_subclass__(**kwargs)
        rest, place = dict(inspect.signature(cls.options).parameters), inspect.Parameter.POSITIONAL_OR_KEYWORD
        first = inspect.Parameter("params", place), rest.pop("lr").replace(kind=place)
        cls.__signature__ = inspect.Signature([*first, *rest.values()])  # type: ignore[attr-defined]
        meanings = {"params": "Parameters, or groups of them; each option can be set per group."}
        meanings |= {key: field.description or "" for key, field in cls.options.model_fields.items()}
        lines = "".join(f"        {key}: {' '.join(said.split())}\n" for key, said in meanings.items())
        cls.__doc__ = f"{(cls.__doc__ or '').rstrip()}\n\n    Args:\n{lines}    "

    def __init__(self, params: ParamsT, lr: float | Tensor | None = None, *more: Any, **options: Any) -> None:
        if more:
            name = type(self).__name__
            raise TypeError(f"{name} takes params and lr by position; give {more[0]!r} by its name")
        super().__init__(params, {**dict(self.options()), **options, **({} if lr is None else {"lr": lr})})

    def numbers(self, group: Mapping[str, Any], t: Any) -> dict[str, Any]:
        """Return the numbers of step ``t`` (from 1) for :meth:`update`, in addition to ``lr`` and ``decay``.

        ``lr`` is the learning rate, unless it is returned as well. ``decay`` is 1 - lr lambda.
        """
        raise NotImplementedError

    def static(self, group: Mapping[str, Any], shape: Shape) -> dict[str, Hashable]:
        """Return further arguments of :meth:`update` for tensors of ``shape``, constant over steps."""
        return {}

    update: ClassVar[Callable[..., None]]
    """``update(p, g, **state, **numbers, **static)``: one step of one parameter p, in place."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group after checking its options and the shapes of its parameters.

        Raises:
            ValueError: see the class.
        """
        super().add_param_group(param_group)
        fields = self.options.model_fields
        try:
            if unknown := self.param_groups[-1].keys() - fields.keys() - NOT_OPTIONS:
                raise ValueError(f"there is no option {min(unknown)!r}{nearest(min(unknown), fields)}")
            options = self._checked(self.param_groups[-1])
            for p in self.param_groups[-1]["params"]:
                options.state(tuple(p.shape), self.param_groups[-1].get("layout", ""))
        except ValueError as error:
            self.param_groups.pop()
            raise ValueError(f"{type(self).__name__}: {error}") from None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over groups and state, as loaded or copied.

        Raises:
            ValueError: they are not those of an optimizer of this class.
        """
        for group in state.get("param_groups", ()):
            if missing := self.options.model_fields.keys() - group.keys():
                self._refuse_state(f"no option {min(missing)!r}")
            possible = self.options(), self._checked(group)
            for p in group["params"]:
                known = [one.state(tuple(p.shape), group.get("layout", "")) for one in possible]
                if unknown := state["state"].get(p, {}).keys() - {"step"}.union(*known):
                    self._refuse_state(f"a tensor {min(unknown)!r}")
        super().__setstate__(state)

    def _refuse_state(self, why: str) -> NoReturn:
        raise ValueError(f"{type(self).__name__}: the state is another optimizer's: it has {why}")

    def _checked(self, group: Mapping[str, Any]) -> Options:
        """Return the options of a group."""
        options = {key: group[key] for key in self.options.model_fields}
        if isinstance(options["lr"], Tensor):
            if options["lr"].numel() != 1:
                raise ValueError("Tensor lr must be 1-element")
            options["lr"] = float(options["lr"])
        try:
            return self.options.model_validate(options)
        except ValidationError as error:
            wrong = "; ".join(explain(e, e["loc"], options) for e in error.errors())
            raise ValueError(f"Invalid {wrong}") from None

    def take_step(self) -> None:
        """Update every parameter that has a gradient."""
        self._init_group()
        large = sum(p.numel() for group in self.param_groups for p in group["params"]) >= LARGE
        jobs: dict[Any, list[Job]] = {}
        for group in self.param_groups:
            numbers: dict[Any, dict[str, Any]] = {}
            for p in group["params"]:
                if p.grad is None or p.numel() == 0:
                    continue
                if p.grad.is_sparse or p.grad.is_complex():
                    kind = "sparse" if p.grad.is_sparse else "complex"
                    raise RuntimeError(f"{type(self).__name__} does not support {kind} gradients")
                self.state[p]["step"] += 1
                tensors = {**self.state[p], "p": p, "g": -p.grad if group["maximize"] else p.grad}
                step = tensors.pop("step")
                traced = torch.compiler.is_compiling()  # by torch.compile around the whole optimizer
                t = step.double() if traced else int(step)
                if traced or t not in numbers:
                    lr = {"lr": group["lr"], "decay": 1 - group["lr"] * group["weight_decay"]}
                    numbers[t] = lr | self.numbers(group, t)
                # Inductor cannot write to a 0-d parameter.
                wanted = p.ndim > 0 and (large if group["compile"] is None else group["compile"])
                job = Job(type(self).update, tensors, numbers[t], self.static(group, tuple(p.shape)))
                jobs.setdefault((p.device, p.dtype, wanted), []).append(job)
        for (_, _, wanted), some in jobs.items():
            run(localise(some), wanted, self._compiled)

    def _init_group(self) -> None:
        """Create the state of all parameters that take their first step.

        ``torch.compile`` around a step calls the method of this name untraced before it traces the rest.
        """
        self._compiled: Compiled = getattr(self, "_compiled", {})
        for group in self.param_groups:
            new = [p for p in group["params"] if p.grad is not None and p.numel() and not self.state[p]]
            options = self._checked(group) if new else self.options()
            for p in new:
                half = torch.float64 if p.dtype == torch.float64 else torch.bfloat16
                self.state[p]["step"] = torch.tensor(0.0, dtype=torch.float32)
                for name, shape in options.state(tuple(p.shape), group.get("layout", "")).items():
                    dtype = half if name in options.in_bfloat16 else wide(p.dtype)
                    self.state[p][name] = zeros(p, shape, dtype)


def where(condition: Any, yes: Any, no: Any) -> Any:
    """Choose between numbers; by tensor operations if ``torch.compile`` makes the step count a tensor."""
    if not isinstance(condition, Tensor):
        return yes if condition else no
    return torch.where(condition, *(torch.as_tensor(x, dtype=torch.float64) for x in (yes, no)))
