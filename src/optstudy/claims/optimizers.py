"""Claims that compare optimizers over learning rate, momentum and the rest (section 2, appendix C)."""

from itertools import product

from optstudy.claims.rules import at, average, best, every, gain, mean, sensitivity, settings
from optstudy.claims.words import (
    ADAM,
    ALL,
    FLAT,
    HALF,
    NON_SGD,
    SAME,
    SGD,
    SIGNUM,
    against,
    betas,
    claim,
    longer,
    momentum,
    other,
    standard,
    variant,
)

DIALS = ("weight decay", "warm-up", "beta2")


def has(panel: str, name: str) -> bool:
    """Whether Figure 7 sweeps this hyperparameter of an optimizer."""
    return panel != "beta2" or name not in ("signum", "sgdw")


SWEEPS = (
    claim(
        "non-sgd-same-loss", "fig1",
        "Except for SGD, the optimizers perform comparably at their best learning rate.",
        f"best losses of Adafactor, Lion and Signum within {SAME} nats of Adam's",
        best(*against(NON_SGD[1:], "adam"), low=-SAME, high=SAME),
    ),
    claim(
        "non-sgd-same-stability", "fig1",
        "Except for SGD, the optimizers are equally stable to the learning rate.",
        f"sensitivities of Adafactor, Lion and Signum within {FLAT} nats of Adam's",
        sensitivity(*against(NON_SGD[1:], "adam"), low=-FLAT, high=FLAT),
    ),
    claim(
        "sgd-worse-loss", "fig1",
        "SGD is worse in best loss.",
        f"SGD's best loss more than {SAME} nats above that of each of the others",
        best(*((SGD, standard(name)) for name in NON_SGD), low=SAME),
    ),
    claim(
        "sgd-less-stable", "fig1",
        "SGD is worse in stability to the learning rate.",
        f"SGD's sensitivity more than {FLAT} nats above that of each of the others",
        sensitivity(*((SGD, standard(name)) for name in NON_SGD), low=FLAT),
    ),
    claim(
        "adam-adafactor-rate", "table1",
        "The optimal learning rates of Adam and Adafactor are similar.",
        "at most one half-decade apart",
        settings((ADAM, standard("adafactor")), low=-HALF, high=HALF),
    ),
    claim(
        "lion-signum-rate", "table1",
        "The optimal learning rates of Lion and Signum are an order of magnitude smaller.",
        "Adam's 10 times theirs, up to one half-decade more or less",
        settings((ADAM, standard("lion")), (ADAM, SIGNUM), low=1 - HALF, high=1 + HALF),
    ),
    claim(
        "variant-same-loss", "fig4",
        "Without QK-norm and z-loss, Adafactor and Lion remain competitive with Adam.",
        f"best losses at most {SAME} nats above Adam's",
        best(*against(("adafactor", "lion"), "adam", variant), high=SAME),
    ),
    claim(
        "variant-sgd-worse", "fig4",
        "Without QK-norm and z-loss, SGD is worse in best loss and stability.",
        f"best loss more than {SAME}, sensitivity more than {FLAT} nats above those of the first three",
        every(
            best(*((variant("sgdw"), variant(name)) for name in NON_SGD[:3]), low=SAME),
            sensitivity(*((variant("sgdw"), variant(name)) for name in NON_SGD[:3]), low=FLAT),
        ),
    ),
    claim(
        "variant-less-stable", "fig4",
        "Models without QK-norm and z-loss are less stable than the standard model.",
        "sensitivity larger without them, on average over the five optimizers",
        average(*((variant(name), standard(name)) for name in ALL), low=0.0),
    ),
    claim(
        "longer-better", "fig5",
        "Models trained four times as long achieve better performance.",
        "best loss of every optimizer lower than in Figure 1",
        best(*((longer(name), standard(name)) for name in ALL), high=0.0),
    ),
    claim(
        "longer-more-stable", "fig5",
        "Models trained four times as long are more stable across learning rates.",
        "sensitivity smaller than in Figure 1, on average over the five optimizers",
        average(*((longer(name), standard(name)) for name in ALL), high=0.0),
    ),
    claim(
        "longer-same-order", "fig5",
        "Longer training does not change the comparison of optimizers.",
        f"Adafactor and Lion at most {SAME} nats above Adam, SGD more than {SAME} above all three",
        every(
            best(*against(("adafactor", "lion"), "adam", longer), high=SAME),
            best(*((longer("sgdw"), longer(name)) for name in NON_SGD[:3]), low=SAME),
        ),
    ),
)  # fmt: skip

HYPERPARAMETERS = (
    claim(
        "momentum-same-stability", "fig6",
        "Between momenta of 0.8 and 0.98 the non-SGD optimizers are similarly robust.",
        f"mean loss above the best over 0.8 to 0.98 within {FLAT} nats of Adam's",
        sensitivity(
            *((momentum(name, 0.8, 0.98), momentum("adam", 0.8, 0.98)) for name in NON_SGD[1:]),
            low=-FLAT, high=FLAT, whole=True,
        ),
    ),
    claim(
        "momentum-low", "fig6",
        "At low momentum Adam and Adafactor are better than Lion and Signum.",
        "loss at momentum 0 lower, each of the two against each of the others",
        at(
            0.0,
            *((momentum(a), momentum(b)) for a, b in product(("adam", "adafactor"), ("lion", "signum"))),
            high=0.0,
        ),
    ),
    claim(
        "momentum-high", "fig6",
        "At high momentum Lion is better.",
        "loss at momentum 0.99 lower than that of Adam, Adafactor and Signum",
        at(
            0.99,
            *((momentum("lion"), momentum(b)) for b in ("adam", "adafactor", "signum")),
            high=0.0,
        ),
    ),
    claim(
        "momentum-sgd", "fig6",
        "SGD is substantially more sensitive to momentum.",
        f"mean loss above the best over 0 to 0.99 more than {FLAT} nats above that of each of the others",
        sensitivity(*((momentum("sgdw"), momentum(name)) for name in NON_SGD), low=FLAT, whole=True),
    ),
    claim(
        "others-more-stable", "fig7",
        "Non-SGD optimizers are more stable to weight decay, warm-up and beta2 than to learning rate.",
        "mean loss above the best over the paper's grid smaller than over that of the learning rate",
        sensitivity(
            *((other(d, n), standard(n)) for d, n in product(DIALS, NON_SGD) if has(d, n)),
            high=0.0, whole=True,
        ),
    ),
    claim(
        "others-gain-little", "fig7",
        "The possible gains from weight decay, warm-up and beta2 are small.",
        f"loss at the default at most {SAME} nats above the best of the sweep, for the non-SGD optimizers",
        every(
            *(
                gain(default, *(other(d, n) for n in NON_SGD if has(d, n)), high=SAME)
                for d, default in zip(DIALS, (0.0, 0.1, 0.95), strict=True)
            )
        ),
    ),
    claim(
        "sgd-decay-warmup", "fig7",
        "SGD is less stable to weight decay and warm-up.",
        "mean loss above the best over the grid larger than that of each of the others",
        sensitivity(
            *((other(d, "sgdw"), other(d, n)) for d, n in product(DIALS[:2], NON_SGD)), low=0.0, whole=True
        ),
    ),
    claim(
        "tied-betas", "fig8",
        "With beta1 = beta2 Adam behaves like Signum.",
        f"mean loss over momenta 0.8 to 0.98 within {SAME} nats, sensitivity over all within {FLAT}",
        every(
            mean((betas("adam_tied_betas", 0.8, 0.98), betas("signum", 0.8, 0.98)), low=-SAME, high=SAME),
            sensitivity((betas("adam_tied_betas"), betas("signum")), low=-FLAT, high=FLAT, whole=True),
        ),
    ),
    claim(
        "fixed-beta2-more-stable", "fig8",
        "With beta2 fixed Adam is more stable to beta1 than Signum.",
        "mean loss above the best over momenta 0 to 0.99 smaller",
        sensitivity((betas("adam"), betas("signum")), high=0.0, whole=True),
    ),
)  # fmt: skip
