"""Other people's classes: imported by path; optimizers checked against their constructors, and built.

Runs their code.
"""

import difflib
import importlib
import inspect
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar

from torch import nn
from torch.optim.optimizer import Optimizer

from optstudy.errors import UserError, first_line, nearest, shortened
from optstudy.provenance import require

DECAYS = ("weight_decay", "wd")
"""Names used for the coefficient of weight decay relative to lr."""
KNOWN_AS = {Optimizer: "torch.optim.Optimizer", nn.Module: "torch.nn.Module"}
PACKAGE = Path(__file__).parents[1]
INSTALLED = {"site-packages", "dist-packages"}
MOST_SAID = 300
"""Characters that are told of what an error says."""
BROKEN = (TypeError, ValueError, LookupError, AttributeError, AssertionError)
"""Exceptions that constructors raise for arguments that they do not accept."""


C = TypeVar("C")


def load(target: str, kind: str, base: type[C]) -> type[C]:
    """Import the class at a path.

    Args:
        target: the path.
        kind: what it is to be, ``optimizer`` or ``model``: the config key ``KIND.name`` says the path.
        base: the class that it derives from.

    Raises:
        UserError: it does not exist or cannot be imported; gives the location of the mistake.
    """
    require(target, kind)
    module, _, name = target.rpartition(".")
    try:
        home = importlib.import_module(module)
        found = getattr(home, name, None)
    except SyntaxError as error:
        place = f"{error.filename}:{error.lineno or 1}" if error.filename else module
        raise UserError(f"{kind} {target!r}: {place}: {error.msg}", f"{kind}.name", target) from None
    except (Exception, SystemExit) as error:
        said = said_where(error)
        raise UserError(f"{kind} {target!r} cannot be imported: {said}", f"{kind}.name", target) from None
    if found is None:
        classes = [key for key, one in vars(home).items() if isinstance(one, type) and issubclass(one, base)]
        classes = difflib.get_close_matches(name, dir(home), n=1) or classes  # not all need be imported yet
        said = f"{kind} {target!r}: {module} has no {name!r}{nearest(name, classes)}"
        raise UserError(said, f"{kind}.name", target)
    if not (isinstance(found, type) and issubclass(found, base)):
        what = "another class" if isinstance(found, type) else f"of type {type(found).__name__}"
        said = f"{kind} {target!r} is not a {KNOWN_AS[base]}, but {what}"
        raise UserError(said, f"{kind}.name", target)
    return found


def said_where(error: BaseException, whole: bool = False) -> str:
    """Return where an error of imported code was raised, and its first line, or all of it on one."""
    said = shortened(" ".join(str(error).split()), MOST_SAID) if whole else first_line(error)
    return f"{_place(error)}{type(error).__name__}: {said}"


def _place(error: BaseException) -> str:
    """Return where imported code failed, as ``FILE:LINE: ``; empty if no file of it is known."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_file()]
    theirs = [
        f for f in frames if not Path(f.filename).is_relative_to(PACKAGE) and f.filename != importlib.__file__
    ]
    own = [f for f in theirs if not INSTALLED & set(Path(f.filename).parts)] or theirs
    return f"{own[-1].filename}:{own[-1].lineno}: " if own else ""


@dataclass(frozen=True)
class Taken:
    """What a class accepts."""

    arguments: frozenset[str]
    """Argument names of its constructor, and of those that ``**kwargs`` are passed to."""
    words: frozenset[str]
    """Strings in its own code, which include the keys of groups that it reads."""


def taken(cls: type[Optimizer]) -> Taken:
    """Return what a class accepts: arguments, and keys that its code knows."""
    arguments: set[str] = set()
    mine = cls.__mro__[: cls.__mro__.index(Optimizer)]
    for one in mine:
        if "__init__" not in vars(one):
            continue
        parameters = list(inspect.signature(vars(one)["__init__"]).parameters.values())[1:]
        arguments |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            break
    return Taken(frozenset(arguments), frozenset(word for one in mine for word in _words(one)))


def _words(cls: type) -> Iterator[str]:
    for value in vars(cls).values():
        function: Any = inspect.unwrap(value) if callable(value) else getattr(value, "__func__", None)
        if isinstance(code := getattr(function, "__code__", None), CodeType):
            yield from _constants(code)


def _constants(code: CodeType) -> Iterator[str]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _constants(constant)
        for word in constant if isinstance(constant, (tuple, frozenset)) else (constant,):
            if isinstance(word, str):
                yield word


def construct(target: str, groups: list[dict[str, Any]]) -> Optimizer:
    """Return an instance of the class at an import path.

    Options that all groups share are passed to the constructor if it accepts them; a group's own options are
    set in the group. Weight decay is set in every group, so that a class's default is never used.

    Args:
        target: the path.
        groups: parameters, ``lr``, ``weight_decay`` per unit of lr, and options; ``role`` is added after the
            class has seen its groups.

    Raises:
        UserError: the class lacks an option or weight decay, or refuses a value.
    """
    cls = load(target, "optimizer", Optimizer)
    takes = taken(cls)
    decay_name = next((name for name in DECAYS if name in takes.arguments | takes.words), None)
    told = ("params", "lr", "role", "weight_decay")
    options = {k: v for group in groups for k, v in group.items() if k not in told}
    for key in options.keys() & {*DECAYS}:
        raise UserError(
            f"{key!r} is not an option of {target}: set optimizer.weight_decay", key, options[key]
        )
    given = [{k: v for k, v in group.items() if k not in ("role", "weight_decay")} for group in groups]
    if decay_name:
        given = [{**one, decay_name: group["weight_decay"]} for one, group in zip(given, groups, strict=True)]
    first = {key: value for key, value in given[0].items() if key in takes.arguments - {"params"}}
    arguments = {
        key: value
        for key, value in first.items()
        if key == "lr" or all(key in group and group[key] == value for group in given)
    }
    try:
        optimizer = cls(given, **arguments)
        defaults = optimizer.defaults
    except BROKEN as error:
        unknown = [key for key in options if key not in takes.arguments | takes.words]
        if unknown:
            raise _unknown(target, takes, unknown[0], options[unknown[0]]) from None
        raise UserError(f"optimizer {target!r}: {_said(error)}", "optimizer.name", target) from None
    for key, value in options.items():
        if key in defaults or key in takes.words - takes.arguments or key in arguments:
            continue
        if key not in takes.arguments:
            raise _unknown(target, takes, key, value)
        raise UserError(f"option {key!r} of {target} must be the same for all parameters", key, value)
    _set_decay(target, optimizer, decay_name, groups)
    by_parameter = {id(p): group for group in groups for p in group["params"]}
    for group in optimizer.param_groups:
        own = by_parameter.get(id(group["params"][0]), {})
        if "role" in own:
            group["role"] = own["role"]
    return optimizer


def _said(error: BaseException) -> str:
    said = first_line(error)
    return (
        said
        if type(error).__name__ in said or isinstance(error, (TypeError, ValueError))
        else (f"{type(error).__name__}: {said}")
    )


def _unknown(target: str, takes: Taken, key: str, value: Any) -> UserError:
    known = takes.arguments - {"params", "lr", *DECAYS}
    return UserError(f"unknown option {key!r} of {target}{nearest(key, known)}", key, value)


def _set_decay(target: str, optimizer: Optimizer, known: str | None, groups: list[dict[str, Any]]) -> None:
    """Set weight decay where the class has a default of its own; refuse it where there is none."""
    names = [name for name in DECAYS if name in optimizer.defaults]
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    if any(decays.values()) and known is None and not names:
        said = f"optimizer {target!r} takes no weight_decay; leave optimizer.weight_decay at 0"
        raise UserError(said, "optimizer.weight_decay")
    for group in optimizer.param_groups:
        group.update(dict.fromkeys(names, decays[id(group["params"][0])]))
