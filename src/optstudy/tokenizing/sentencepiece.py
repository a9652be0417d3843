"""SentencePiece model files as :class:`tokenizers.Tokenizer`, without the library sentencepiece.

A model file is a protocol buffer (google/sentencepiece, ``src/sentencepiece_model.proto``); the few fields
that decide how text is cut are read here. Control pieces that are written out in a text become those pieces,
as Hugging Face's tokenizers have it. Where two unigram cuts score the same to within float32, that
library, which adds in float32, may choose the other.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from optstudy.errors import UserError

UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"

Value = int | bytes


@dataclass(frozen=True)
class SentencePieceModel:
    """What a model file says."""

    pieces: list[tuple[str, float, int]]
    """Piece, score and type, by id."""
    kind: int
    """:data:`UNIGRAM` or :data:`BPE`."""
    byte_fallback: bool
    charsmap: bytes
    """Compiled normalization rules; empty: none."""
    dummy_prefix: bool
    """Put a space before the text."""
    remove_extra_whitespaces: bool


def parse(data: bytes) -> SentencePieceModel:
    """Read a model file.

    Raises:
        ValueError: no such file.
    """
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for number, value in _fields(data):
        if number == 1:
            piece = dict(_fields(_bytes(value)))
            score = struct.unpack("<f", _bytes(piece.get(2, bytes(4))))[0]
            pieces.append((_bytes(piece[1]).decode(), score, _int(piece.get(3, NORMAL))))
        elif number == 2:
            trainer = dict(_fields(_bytes(value)))
        elif number == 3:
            normalizer = dict(_fields(_bytes(value)))
    if not pieces:
        raise ValueError("it has no pieces")
    return SentencePieceModel(
        pieces=pieces,
        kind=_int(trainer.get(3, UNIGRAM)),
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=_bytes(normalizer.get(2, b"")),
        dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
    )


def load(path: Path, extra: tuple[str, ...] = ()) -> Tokenizer:
    """Build the tokenizer of a model file; ``extra`` pieces follow its own.

    Raises:
        UserError: an unreadable file, or a model that is neither unigram nor BPE.
    """
    try:
        model = parse(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise UserError(f"{path}: no SentencePiece model ({error})") from None
    if model.kind not in (UNIGRAM, BPE):
        raise UserError(
            f"{path}: a SentencePiece model of type {model.kind}; unigram (1) and BPE (2) can be read"
        )
    tokenizer = Tokenizer(_unigram(model, extra) if model.kind == UNIGRAM else _bpe(model, extra))
    tokenizer.normalizer = normalizers.Sequence(_normalizers(model))
    split = model.kind == UNIGRAM
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "never", split)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", int(model.dummy_prefix), 0)])
    special = [p for p, _, kind in model.pieces if kind in (UNKNOWN, CONTROL)] + list(extra)
    tokenizer.add_special_tokens([AddedToken(p, normalized=False, special=True) for p in special])
    defined = [p for p, _, kind in model.pieces if kind == USER_DEFINED]
    tokenizer.add_tokens([AddedToken(p, normalized=False) for p in defined])
    return tokenizer


def _normalizers(model: SentencePieceModel) -> list[normalizers.Normalizer]:
    steps: list[normalizers.Normalizer] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Strip(left=True, right=True))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if model.dummy_prefix:
        steps.append(normalizers.Prepend(" "))
    return steps


def _unigram(model: SentencePieceModel, extra: tuple[str, ...]) -> models.Model:
    vocabulary = [(piece, score) for piece, score, _ in model.pieces] + [(piece, 0.0) for piece in extra]
    return models.Unigram(vocabulary, _unknown(model), model.byte_fallback)


def _bpe(model: SentencePieceModel, extra: tuple[str, ...]) -> models.Model:
    """Turn scores to merges: a pair joins earlier the higher the score of what it makes."""
    ids = {piece: i for i, (piece, _, _) in enumerate(model.pieces)}
    merges: list[tuple[float, tuple[str, str]]] = []
    for piece, score, kind in model.pieces:
        if kind == NORMAL:
            cuts = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
            found = [(left, right) for left, right in cuts if left in ids and right in ids]
            found.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
            merges.extend((-score, pair) for pair in found)
    merges.sort(key=lambda merge: merge[0])
    ids |= {piece: len(ids) + i for i, piece in enumerate(extra)}
    unknown = model.pieces[_unknown(model)][0]
    return models.BPE(
        ids, [pair for _, pair in merges], unk_token=unknown, fuse_unk=True, byte_fallback=model.byte_fallback
    )


def _unknown(model: SentencePieceModel) -> int:
    return next((i for i, (_, _, kind) in enumerate(model.pieces) if kind == UNKNOWN), 0)


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Yield (number, value) of a message; fixed-width values come as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = _varint(data, at)
            case 5:
                size = 4
            case wire:
                raise ValueError(f"wire type {wire}")
        if at + size > len(data):
            raise ValueError("it is cut short")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[at]
        result |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return result, at


def _bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("a number where bytes belong")
    return value


def _int(value: Value) -> int:
    if not isinstance(value, int):
        raise TypeError("bytes where a number belongs")
    return value
