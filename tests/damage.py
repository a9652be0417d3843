"""Damage done at random to what optstudy reads: study files, configs, records and texts."""

import copy
import gzip
import json
import os
from pathlib import Path

LONG = 10**30
VALUES = (
    *([], ["adam", "lion"], [[1], {"a": [2]}], {}, {"a": {"b": 1}}, {"from": 1, "to": 10}, None, True, False),
    *(0, -1, 3, 1.5, -0.0, 1e300, 10**12, 1 << 63, LONG, 10**400, float("nan"), float("inf")),
    *(
        "",
        "adam",
        "x.y",
        "no such",
        "a\0b",
        "\ud800",
        "\ud83d\ude00",
        "~nosuchuser/x",
        "$x",
        ".",
        "path:",
        "é" * 300,
    ),
)
"""What may stand where something else is wanted."""
HURTING = (
    *(b"", b"\n", b"{}", b"[]", b"[1, 2]", b"7", b"null", b'"text"', b'{"id"', b"\0" * 300, b"\xff\xfe\x00"),
    *(b"\x89PNG\r\n\x1a\n\xff\xfe", b"[" * 100_000, b'{"a":' * 3000, b'{"step": ' + b"1" * 5000 + b"}"),
    *(b'{"val_loss": NaN}', b"\xef\xbb\xbf", b"{}{}", b"'a': 1"),
)
"""What a whole file of a record may be turned into."""


def places(tree, above=()):
    """Every place in nested mappings and lists, as keys and numbers that lead to it."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from places(value, (*above, key))


def changed(tree, rng):
    """Return a tree with one value replaced, wrapped, removed, renamed or added."""
    tree = copy.deepcopy(tree)
    *parents, last = rng.choice(list(places(tree)) or [("a",)])
    node = tree
    for key in parents:
        node = node[key]
    kind = rng.randrange(8)
    if kind < 4 or not isinstance(node, dict):
        node[last] = copy.deepcopy(rng.choice(VALUES))
    elif kind == 4:
        node[last] = [node[last]]
    elif kind == 5:
        node[last] = {rng.choice(["a", "optimizer.lr", "", ".", "$x"]): node[last]}
    elif kind == 6:
        del node[last]
    else:
        node[rng.choice(["", ".", "optimizer..lr", "$", "no such", "é"])] = node.pop(last)
    return tree


def of_json(content, rng):
    """Return the text of a JSON file with one wound in its values."""
    return json.dumps(changed(json.loads(content), rng), ensure_ascii=rng.random() < 0.8).encode(
        errors="surrogatepass"
    )


def of_lines(content, rng):
    """Return the text of JSON lines with one line wounded, cut or doubled."""
    lines = content.splitlines(keepends=True) or [b"{}\n"]
    at = rng.randrange(len(lines))
    kind = rng.randrange(4)
    if kind == 0:
        lines[at] = lines[at][: rng.randrange(len(lines[at]))]
    elif kind == 1:
        lines.insert(at, rng.choice(HURTING) + b"\n")
    elif kind == 2:
        lines = lines[:at]
    else:
        lines[at] = of_json(lines[at], rng) + b"\n"
    return b"".join(lines)


def a_file(path: Path, rng):
    """Damage one file of a record in place; whether it is beyond doubt that nothing can be read from it."""
    content = path.read_bytes()
    kind = rng.randrange(10)
    if kind < 4:
        content = rng.choice(HURTING)
        path.write_bytes(content)
        return True
    if kind < 8:
        path.write_bytes((of_lines if path.suffix == ".jsonl" else of_json)(content, rng))
        return False
    path.unlink()
    if kind == 8:
        path.mkdir()
    else:
        rng.choice([lambda: path.symlink_to(path.name), lambda: os.mkfifo(path)])()
    return True


def a_corpus(folder: Path, rng):
    """Write a file of text with some damage into a folder, and return it."""
    documents = [f"Sentence {i} of a text, and another one. " * 8 for i in range(60)]
    as_lines = rng.random() < 0.7
    lines = [json.dumps({"text": one}).encode() if as_lines else one.encode() + b"\n" for one in documents]
    content = b"\n".join(lines) + b"\n"
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(content) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            content = content[:at]
        elif kind == 1:
            content = (
                content[:at] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 8))) + content[at:]
            )
        elif kind == 2:
            content = content[:at] + rng.choice(HURTING) + content[at:]
        else:
            content = of_lines(content, rng) if as_lines else content[at:]
    name = rng.choice(["text", "~text", "te xt #2", "te: xt", "\ud83d\ude00", "caf\udce9", "new\nline"])
    name = name.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    path = folder / (name + rng.choice([".jsonl", ".ndjson", ".JSONL"] if as_lines else [".txt", ".md"]))
    if rng.random() < 0.4:
        packed = bytearray(gzip.compress(content))
        for _ in range(rng.randrange(3)):
            packed[rng.randrange(len(packed))] ^= 1 << rng.randrange(8)
        content, path = (
            bytes(packed[: rng.choice([None, len(packed) // 2, 0])]),
            path.with_name(f"{path.name}.gz"),
        )
    path.write_bytes(content)
    return path


def a_tree(tree, rng):
    """Return the text of a YAML file: a tree with one or two wounds in its values, as JSON writes it."""
    for _ in range(rng.randint(1, 2)):
        tree = changed(tree, rng)
    return json.dumps(tree, ensure_ascii=rng.random() < 0.8).encode(errors="surrogatepass")
