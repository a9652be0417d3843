"""Where text comes from: downloads, the hub, local files, and the cleaning of dumps."""

VALIDATION_EVERY = 20


def held_out(number: int) -> bool:
    """Whether a document, counted from 0, is for validation: of every twenty the second."""
    return number % VALIDATION_EVERY == 1
