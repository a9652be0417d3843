"""Sources of text: downloads, the hub, local files, and the cleaning of dumps."""

VALIDATION_EVERY = 20


def held_out(number: int) -> bool:
    """Say whether a document, counted from 0, is for validation: the second of every twenty."""
    return number % VALIDATION_EVERY == 1
