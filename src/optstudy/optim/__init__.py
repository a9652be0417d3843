"""The paper's optimizers, each a ``torch.optim.Optimizer`` on one screen beside its algorithm.

Imports nothing of this project but itself, so that it serves any model.
"""

from optstudy.optim.adafactor_bv import AdafactorBigVision
from optstudy.optim.preconditioned import Adafactor, Adalayer, Adam, Preconditioned
from optstudy.optim.sgdw import SGDW
from optstudy.optim.sign import Lion, Signum
from optstudy.optim.sophia import Sophia
from optstudy.optim.together import Together

__all__ = [
    "SGDW",
    "Adafactor",
    "AdafactorBigVision",
    "Adalayer",
    "Adam",
    "Lion",
    "Preconditioned",
    "Signum",
    "Sophia",
    "Together",
]
