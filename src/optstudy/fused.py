"""Where the matrices fused in one weight begin, and how a second moment is shared in them."""

from collections.abc import Sequence

from torch import nn

from optstudy import architectures as known
from optstudy.errors import UserError
from optstudy.modules import Maps, Place, Played, class_of, declared
from optstudy.recipes import MATRICES

FUSED = {"qkv": "split-3", "mlp_in": "split-2"}
"""The option that gives one value to each of the matrices fused in a weight, by role."""


def blocks_of(one: Played, kind: str) -> str:
    """Return the option ``kind`` of a second moment for this weight: if matrices are fused in it, with them.

    Args:
        one: a weight and its role.
        kind: as :data:`optstudy.optim.blocks.KINDS`.

    Raises:
        UserError: the weight's rows, heads or fused matrices cannot be told, or do not fit the option.
    """
    if kind in ("weight", "none") or one.role is None:
        return kind
    place = one.place
    if isinstance(place.module, nn.Linear) and place.leaf == "weight" and one.parameter.ndim != 2:
        raise UserError(
            f"second_moment {kind!r}: {one.name!r} is stored flat, which hides its blocks; shard the model "
            "with torch.distributed.fsdp.fully_shard"
        )
    by_rows = kind == "head" or kind.startswith(("split", "row"))
    if by_rows and one.role in MATRICES and place.transposed is None:
        raise UserError(
            f"second_moment {kind!r}: which dimension of {one.name!r}, {tuple(one.parameter.shape)}, counts "
            "outputs cannot be told; give its module an attribute 'transposed', true or false"
        )
    if kind == "head":
        return _by_head(one)
    if kind == FUSED.get(one.role):
        return _by_matrix(one, kind)
    if kind.startswith("split") and one.role == "qkv" and 0 < sum(_sizes(one) or ()) < _outputs(one):
        raise UserError(
            f"second_moment {kind!r}: {one.name!r} holds q, k, v head by head, not in equal parts; "
            f"{FUSED['qkv']!r} gives each a value"
        )
    return kind


def _by_matrix(one: Played, kind: str) -> str:
    """Return blocks that are the matrices fused in a weight."""
    sizes, rows = _sizes(one), _outputs(one)
    if sizes is None or rows % sum(sizes):
        said = "cannot be told" if sizes is None else f"is not as parts {sizes} of its module say"
        raise UserError(
            f"second_moment {kind!r}: where q, k and v begin in {one.name!r}, {tuple(one.parameter.shape)}, "
            f"{said}; give its module an attribute 'parts', their sizes in rows, such as (64, 16, 16), which "
            "repeat: (8, 8, 8) for q, k, v head by head"
        )
    return "tensor" if len(sizes) == 1 else _split(sizes, rows)


def _by_head(one: Played) -> str:
    """Return Adam-mini's blocks (Zhang et al. 2024, arXiv 2406.16793): heads of q and k, rows of v."""
    said = f"second_moment 'head': {one.name!r}"
    if one.role != "qkv":
        raise UserError(f"{said} plays {one.role!r}; only the role 'qkv' has heads")
    sizes, rows, (maps, attribute) = _sizes(one), _outputs(one), one.place.held
    letters = known.letters(attribute) or known.letters(one.place.path[-2][0])
    alone = sizes is not None and len(sizes) == 1
    if sizes is None or rows % sum(sizes) or not 0 < len(sizes) <= 3 or (alone and len(letters) != 1):
        raise UserError(
            f"{said}: where q, k and v begin cannot be told; give its module an attribute 'parts'"
        )
    parts = list(zip(letters if alone else "qkv"[-len(sizes) :], sizes, strict=True))
    turns = rows // sum(sizes)
    queries = sizes[0] * turns if parts[0][0] == "q" else _rows_of_queries(maps)
    width = known.head_width(maps.module, queries) if queries and not known.is_latent(attribute) else None
    if width is None or any(size % width for letter, size in parts if letter != "v"):
        owner = class_of(maps.module)
        raise UserError(
            f"{said}: its heads cannot be told; give the {owner} around it an attribute 'n_heads'"
        )
    blocks = []
    for letter, size in parts:
        blocks += [1] * size if letter == "v" else [width] * (size // width)
    blocks *= turns
    return "row" if len(blocks) == rows else _split(blocks, rows)


def _split(sizes: Sequence[int], rows: int) -> str:
    """Return the option for blocks of these sizes, which repeat if they do not fill the rows."""
    if len(set(sizes)) == 1 and sum(sizes) == rows:
        return f"split-{len(sizes)}"
    return "split-" + "-".join(map(str, sizes))


def _rows_of_queries(maps: Maps) -> int:
    """Return the rows of the map that makes q alone; 0 for none."""
    return next((maps.sides(name)[0] for name in maps.shapes if known.letters(name) == "q"), 0)


def _outputs(one: Played) -> int:
    """Return the number of outputs of the matrix that this parameter is, or is the bias of."""
    of_bias = one.parameter.ndim < 2 or one.place.leaf.endswith("bias")
    return one.parameter.shape[-1 if of_bias or one.place.transposed else -2]


def _sizes(one: Played) -> tuple[int, ...] | None:
    """Return the rows of each matrix in a weight; None if unknown."""
    place, rows = one.place, _outputs(one)
    said = getattr(place.module, "parts", None)
    if said is not None:
        if not isinstance(said, (tuple, list)) or not all(type(size) is int and size > 0 for size in said):
            raise UserError(
                f"parts of {one.name!r}: must be sizes in rows, such as (64, 16, 16), got {said!r}"
            )
        return tuple(said)
    maps, attribute = place.held
    if one.role == "mlp_in":
        return _gate_and_up(place, rows)
    name, stated = class_of(maps.module), declared(place.module)
    if (known_sizes := known.sizes_by_class(name, attribute, maps.module, rows)) is not None:
        return known_sizes
    beside = {other: place.tree.role_beside(maps, other) for other in maps.shapes if other != attribute}
    outs = [other for other, role in beside.items() if role == "attention_out"]
    queries = maps.sides(outs[0])[1] if len(outs) == 1 else None
    made = known.letters(attribute) or known.letters(place.path[-2][0] if len(place.path) > 1 else "")
    others = list(beside.values()).count("qkv")
    if len(made) == 1 or (others > 1 and not made):
        gated = attribute == "q_proj" and queries is not None and rows == 2 * queries and not stated
        return None if gated else (rows,)
    if others:
        return (rows // 2,) * 2 if len(made) == 2 and rows % 2 == 0 else None
    if not (stated or attribute in place.tree.uses.get(name, {})):
        return None
    queries = queries or (maps.sides(attribute)[1] if attribute in maps.shapes else rows // 3)
    keys, left = divmod(rows - queries, 2)
    return (queries, keys, keys) if keys > 0 and not left else None


def _gate_and_up(place: Place, rows: int) -> tuple[int, ...]:
    """Return the rows of gate and up in an MLP's input map, or all rows if it is a single matrix."""
    maps, _ = place.held
    if maps.mlp is None:
        return (rows // 2,) * 2 if declared(place.module) and rows % 2 == 0 else (rows,)
    ups, down, _ = maps.mlp
    hidden = maps.sides(down, place.transposed)[1]
    if rows == 2 * hidden:
        interleaved = getattr(maps.module, "is_concatenated", True) is False
        return (1, 1) if interleaved else (hidden, hidden)
    return (rows // 2,) * 2 if declared(place.module) and len(ups) == 1 and rows % 2 == 0 else (rows,)
