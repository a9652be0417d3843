"""A function that is called with a trial: a bigram model of letters; the study names its optimizer."""

import this

import torch
from torch.nn import functional as F


def train(trial):
    """Return the loss on the second half of the text; called in a separate process."""
    torch.manual_seed(trial.seed)
    text = torch.tensor([ord(letter) % 32 for letter in this.s.lower()])
    train, val = text[: len(text) // 2], text[len(text) // 2 :]
    model = torch.nn.Sequential(torch.nn.Embedding(32, trial["width"]), torch.nn.Linear(trial["width"], 32))
    optimizer = trial.optimizer(model)
    for step in range(trial["steps"]):
        loss = F.cross_entropy(model(train[:-1]), train[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            trial.log(step=step, tokens=step * len(train), loss=loss.item())
    with torch.no_grad():
        return {
            "val_loss": F.cross_entropy(model(val[:-1]), val[1:]).item(),
            "tokens": trial["steps"] * len(train),
        }
