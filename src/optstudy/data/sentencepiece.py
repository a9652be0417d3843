"""SentencePiece model files as :class:`tokenizers.Tokenizer`.

The library ``sentencepiece`` reads the file; ``tokenizers`` encodes, as in Hugging Face's T5.
``sentencepiece`` could encode as well, and faster (17.6 M tokens of enwik8 in 5 s instead of 31 s on one
core). But it adds scores in float32, which breaks ties between segmentations differently: 96 of enwik8's
8,655 articles would get other ids.
"""

import importlib
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from optstudy.errors import UserError, first_line, printable

UNIGRAM, BPE = 1, 2
"""Types of models (``TrainerSpec.ModelType``)."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of pieces (``ModelProto.SentencePiece.Type``)."""
SPACE = "\u2581"
_SPELT_BYTES = pre_tokenizers.Split(Regex("<0x[0-9A-F]{2}(?=>)"), "isolated")
"""Splits text that is spelled like a byte piece, so that a unigram model does not read it as one."""


def load(path: Path, extra: tuple[str, ...] = ()) -> Tokenizer:
    """Build the tokenizer of a model file; ``extra`` pieces are appended to its vocabulary.

    Raises:
        UserError: an unreadable file, or a model that is neither unigram nor BPE.
    """
    model = _parsed(path)
    kind = model.trainer_spec.model_type
    if kind not in (UNIGRAM, BPE):
        raise UserError(
            f"{printable(path)}: a SentencePiece model of type {kind}; unigram (1) and BPE (2) can be read"
        )
    tokenizer = Tokenizer(_unigram(model, extra) if kind == UNIGRAM else _bpe(model, extra))
    tokenizer.normalizer = normalizers.Sequence(_normalizers(model.normalizer_spec))
    words = pre_tokenizers.Metaspace(SPACE, "never", kind == UNIGRAM)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([_SPELT_BYTES, words]) if kind == UNIGRAM else words
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    prefix = int(model.normalizer_spec.add_dummy_prefix)
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", prefix, 0)])
    special = [p.piece for p in model.pieces if p.type in (UNKNOWN, CONTROL)] + list(extra)
    tokenizer.add_special_tokens([AddedToken(p, normalized=False, special=True) for p in special])
    defined = [p.piece for p in model.pieces if p.type == USER_DEFINED]
    tokenizer.add_tokens([AddedToken(p, normalized=False) for p in defined])
    return tokenizer


def _parsed(path: Path) -> Any:
    """Return the file as the library's ``ModelProto``."""
    try:
        proto = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
        decode_error = importlib.import_module("google.protobuf.message").DecodeError
    except Exception as error:  # a protobuf older than the library raises its own error
        raise UserError(
            f"{printable(path)}: SentencePiece models need other versions of two libraries "
            f"({first_line(error)}); pip install -U sentencepiece protobuf"
        ) from None
    try:
        model = proto.ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise UserError(f"{printable(path)}: {error.strerror}") from None
    except decode_error as error:
        raise UserError(f"{printable(path)}: no SentencePiece model ({first_line(error)})") from None
    if not model.pieces:
        raise UserError(f"{printable(path)}: no SentencePiece model (it has no pieces)")
    return model


def _normalizers(spec: Any) -> list[normalizers.Normalizer]:
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Strip(left=True, right=True))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(" "))
    return steps


def _unigram(model: Any, extra: tuple[str, ...]) -> models.Model:
    vocabulary = [(p.piece, p.score) for p in model.pieces] + [(piece, 0.0) for piece in extra]
    return models.Unigram(vocabulary, _unknown(model), model.trainer_spec.byte_fallback)


def _bpe(model: Any, extra: tuple[str, ...]) -> models.Model:
    """Convert scores to merges: the higher the score of a piece, the earlier a pair is merged into it."""
    ids = {p.piece: i for i, p in enumerate(model.pieces)}
    merges: list[tuple[float, tuple[str, str]]] = []
    for p in model.pieces:
        if p.type == NORMAL:
            cuts = ((p.piece[:i], p.piece[i:]) for i in range(1, len(p.piece)))
            found = [(left, right) for left, right in cuts if left in ids and right in ids]
            found.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
            merges.extend((-p.score, pair) for pair in found)
    merges.sort(key=lambda merge: merge[0])
    ids |= {piece: len(ids) + i for i, piece in enumerate(extra)}
    return models.BPE(
        ids,
        [pair for _, pair in merges],
        unk_token=model.pieces[_unknown(model)].piece,
        fuse_unk=True,
        byte_fallback=model.trainer_spec.byte_fallback,
    )


def _unknown(model: Any) -> int:
    return next((i for i, p in enumerate(model.pieces) if p.type == UNKNOWN), 0)
