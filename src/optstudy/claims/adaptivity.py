"""Claims on where adaptivity is needed, and on Sophia (section 3, appendices D to G). No torch."""

from optstudy.claims.evidence import Of
from optstudy.claims.rules import best, every, middle, rates, sensitivity, spread
from optstudy.claims.words import ADAM, FLAT, SAME, SGD, SIGNUM, claim, standard

MATRICES = ("qkv", "attention_out", "mlp_in", "mlp_out")
STAR = Of("paper/fig9", "adalayer_star")
LAST, LAST_NORM = Of("paper/fig3", "hybrid_last"), Of("paper/fig3", "hybrid_last_norm")
LARGER = Of("paper/fig10", "hybrid_last_norm")
MATRICES_ONLY = Of("paper/fig11", "hybrid_matrix_only")
NORMS_OFF = Of("paper/fig12", "hybrid_last_norms_off")
FACTORED = Of("paper/fig13", "adaptive at its best rate")
FROZEN = Of("paper/fig14", "frozen_keep_last_norm")
FROZEN_ALL = Of("paper/fig15", "frozen_all")
FROZEN_BUT_LAST, FROZEN_BUT_NORM = (
    Of("paper/fig16", "frozen_keep_last"),
    Of("paper/fig16", "frozen_keep_norm"),
)
FROZEN_NORMS_OFF = Of("paper/fig17", "frozen_keep_last_norms_off")
STAR_NORMS_OFF = Of("paper/fig17", "adalayer_star_norms_off")
SOPHIA = Of("paper/fig18", "sophia")
SOPHIA_LIU = (
    Of("paper/fig18", "sophia, Liu et al."),
    Of("paper/fig18", "sophia, Liu et al., scaled attention"),
)

ADALAYER = (
    claim(
        "logit-rates-vary", "fig2",
        "Effective learning rates vary by orders of magnitude across logits, unlike elsewhere.",
        "5 to 95 % of the last layer's rows span a decade or more, and more than matrices and norms",
        every(
            rates(lambda q: spread(q, ["head"]), 1.0),
            rates(lambda q: spread(q, ["head"]) - spread(q, MATRICES), 0.0),
            rates(lambda q: spread(q, ["head"]) - spread(q, ["norm"]), 0.0),
        ),
    ),
    claim(
        "norm-rates-small", "fig2",
        "Effective learning rates of LayerNorms are much smaller than those of matrices.",
        "medians at least a half-decade apart",
        rates(lambda q: middle(q, MATRICES) - middle(q, ["norm"]), 0.5),
    ),
    claim(
        "adalayer-beats-sgd", "fig9",
        "Adalayer has better performance than SGD.",
        "best loss lower than that of SGD",
        best((Of("paper/fig9", "adalayer"), SGD), high=0.0),
    ),
    claim(
        "adalayer-worse-than-adam", "fig9",
        "Adalayer performs worse than Adam and lacks its stability.",
        "best loss and sensitivity larger than Adam's",
        every(
            best((Of("paper/fig9", "adalayer"), ADAM), low=0.0),
            sensitivity((Of("paper/fig9", "adalayer"), ADAM), low=0.0),
        ),
    ),
    claim(
        "star-almost-adam", "fig9",
        "Adalayer* almost recovers the performance and much of the stability of Adam.",
        f"best loss at most {2 * SAME}, sensitivity at most {2 * FLAT} nats above Adam's",
        every(best((STAR, ADAM), high=2 * SAME), sensitivity((STAR, ADAM), high=2 * FLAT)),
    ),
    claim(
        "star-improves-adalayer", "fig9",
        "The correction of the last layer improves performance and stability.",
        "best loss and sensitivity smaller than those of Adalayer",
        every(
            best((STAR, Of("paper/fig9", "adalayer")), high=0.0),
            sensitivity((STAR, Of("paper/fig9", "adalayer")), high=0.0),
        ),
    ),
    claim(
        "first-layer-no-matter", "fig9",
        "Correcting the first layer too makes no significant difference.",
        f"best loss within {SAME}, sensitivity within {FLAT} nats of Adalayer*'s",
        every(
            best((Of("paper/fig9", "adalayer_star_first"), STAR), low=-SAME, high=SAME),
            sensitivity((Of("paper/fig9", "adalayer_star_first"), STAR), low=-FLAT, high=FLAT),
        ),
    ),
)  # fmt: skip

HYBRIDS = (
    claim(
        "last-layer-improves", "fig3",
        "Adalayer* on the last layer alone improves on SGD.",
        "best loss lower than that of SGD",
        best((LAST, SGD), high=0.0),
    ),
    claim(
        "last-layer-unstable", "fig3",
        "Adalayer* on the last layer alone does not recover stability.",
        f"sensitivity more than {FLAT} nats above Adalayer*'s",
        sensitivity((LAST, STAR), low=FLAT),
    ),
    claim(
        "last-norm-loss", "fig3",
        "Adalayer* on last layer and LayerNorms recovers the performance of Adalayer*.",
        f"best loss at most {SAME} nats above Adalayer*'s",
        best((LAST_NORM, STAR), high=SAME),
    ),
    claim(
        "last-norm-stable", "fig3",
        "Adalayer* on last layer and LayerNorms recovers the stability of Adalayer*.",
        f"sensitivity at most {FLAT} nats above Adalayer*'s",
        sensitivity((LAST_NORM, STAR), high=FLAT),
    ),
    claim(
        "last-norm-larger", "fig10",
        "The hybrid on last layer and LayerNorms matches Adalayer* at a larger size too.",
        f"best loss at most {SAME}, sensitivity at most {FLAT} nats above Adalayer*'s",
        every(best((LARGER, STAR), high=SAME), sensitivity((LARGER, STAR), high=FLAT)),
    ),
    claim(
        "matrices-only", "fig11",
        "Adalayer* on the matrices alone improves on SGD, but is not as good, nor stable.",
        f"best loss between SGD's and Adalayer*'s; sensitivity over {FLAT} nats above Figure 3's hybrid",
        every(
            best((MATRICES_ONLY, SGD), high=0.0),
            best((MATRICES_ONLY, STAR), low=0.0),
            sensitivity((MATRICES_ONLY, LAST_NORM), low=FLAT),
        ),
    ),
    claim(
        "norms-off-stable", "fig12",
        "With LayerNorm training off, the last layer alone is more stable than with it.",
        "sensitivity smaller than that of the last-layer hybrid of Figure 3",
        sensitivity((NORMS_OFF, LAST), high=0.0),
    ),
    claim(
        "norms-off-worse", "fig12",
        "With LayerNorm training off, the last layer alone beats SGD but not Adalayer*.",
        "best loss below SGD's and above Adalayer*'s",
        every(best((NORMS_OFF, SGD), high=0.0), best((NORMS_OFF, STAR), low=0.0)),
    ),
    claim(
        "adafactor-hybrid", "fig13",
        "Adafactor on last layer and LayerNorms with SGD elsewhere is comparable to Adafactor.",
        f"best loss at most {SAME}, sensitivity at most {FLAT} nats above Adafactor's",
        every(
            best((FACTORED, standard("adafactor")), high=SAME),
            sensitivity((FACTORED, standard("adafactor")), high=FLAT),
        ),
    ),
)  # fmt: skip

FREEZING = (
    claim(
        "frozen-recovers", "fig14",
        "Ratios frozen at initialization, except last layer and LayerNorms, recover Adalayer*.",
        f"best loss at most {SAME}, sensitivity at most {FLAT} nats above Adalayer*'s",
        every(best((FROZEN, STAR), high=SAME), sensitivity((FROZEN, STAR), high=FLAT)),
    ),
    claim(
        "frozen-all-fails", "fig15",
        "Ratios frozen for all layers reach neither performance nor stability.",
        f"best loss above Adalayer*'s, sensitivity more than {FLAT} nats above",
        every(best((FROZEN_ALL, STAR), low=0.0), sensitivity((FROZEN_ALL, STAR), low=FLAT)),
    ),
    claim(
        "one-adaptive-peak", "fig16",
        "Keeping only the last layer or only LayerNorms adaptive reaches the peak performance of Adalayer*.",
        f"both best losses at most {SAME} nats above Adalayer*'s",
        best((FROZEN_BUT_LAST, STAR), (FROZEN_BUT_NORM, STAR), high=SAME),
    ),
    claim(
        "one-adaptive-unstable", "fig16",
        "Keeping only the last layer or only LayerNorms adaptive is unstable at higher learning rates.",
        f"both sensitivities more than {FLAT} nats above Adalayer*'s",
        sensitivity((FROZEN_BUT_LAST, STAR), (FROZEN_BUT_NORM, STAR), low=FLAT),
    ),
    claim(
        "frozen-norms-off", "fig17",
        "With LayerNorm training off, frozen ratios are more stable and less performant.",
        "sensitivity smaller than with LayerNorm training (Figure 16), best loss above Adalayer*'s",
        every(
            sensitivity((FROZEN_NORMS_OFF, FROZEN_BUT_LAST), high=0.0),
            best((FROZEN_NORMS_OFF, STAR), low=0.0),
        ),
    ),
    claim(
        "norm-training-helps", "fig17",
        "Adalayer* is worse with LayerNorm training off than with it.",
        "best loss above Adalayer*'s",
        best((STAR_NORMS_OFF, STAR), low=0.0),
    ),
)  # fmt: skip

SOPHIA_CLAIMS = (
    claim(
        "sophia-no-better", "fig18",
        "Sophia does not outperform Signum.",
        f"best loss of no setup of Sophia more than {SAME} nats below Signum's",
        best((SOPHIA, SIGNUM), *((setup, SIGNUM) for setup in SOPHIA_LIU), low=-SAME),
    ),
    claim(
        "sophia-setup-no-matter", "fig18",
        "Liu et al.'s hyperparameters, and scaled attention, change Sophia's performance by little.",
        f"best losses within {SAME} nats of the default setup's",
        best(*((setup, SOPHIA) for setup in SOPHIA_LIU), low=-SAME, high=SAME),
    ),
)  # fmt: skip
