"""From text to batches: sources, tokenizers, token files, batches."""

VALIDATION_EVERY = 20


def held_out(number: int) -> bool:
    """Return whether a document, counted from 0, is for validation: the second of every twenty is."""
    return number % VALIDATION_EVERY == 1
