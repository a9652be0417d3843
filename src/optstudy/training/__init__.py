"""One run: model, loss, optimizer, steps, checkpoints, records."""
