"""The device of the tests of optimizers, checkpoints and compiled steps: a CPU, or a GPU (make test-gpu)."""

import os

import torch

DEVICE = torch.device(os.environ.get("OPTSTUDY_TEST_DEVICE", "cpu"))
