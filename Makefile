# One command per habit; CI runs the same ones. `make demo` and `make test` need only python3 and make.
PYTHON ?= python3
BIN := .venv/bin
# Tests start hundreds of processes; where a machine keeps no bytecode each would compile all sources again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-long test-gpu test-launchers lint docs package bench install install-browser record reproduce reproduce-beyond

demo: .venv/installed  ## train and compare five optimizers on real text
	$(BIN)/optstudy demo

test: .venv/installed  ## the fast tests
	$(BIN)/pytest -n 3 --dist worksteal -q -rs -m "not long and not gpu"

test-long: .venv/installed  ## the tests that take minutes
	$(BIN)/pytest -q -m long

ON_GPU := tests/test_gpu.py tests/test_golden.py tests/test_optim.py tests/test_optim_torch.py \
	tests/test_optimizers.py tests/test_checkpoint.py tests/test_compiling.py

test-gpu: .venv/installed  ## the tests of optimizers, checkpoints and compiled steps on a GPU
	OPTSTUDY_TEST_DEVICE=cuda $(BIN)/pytest -n 4 -q -m "not long" $(ON_GPU)

test-launchers: .venv/ray  ## real Slurm and real Ray beside local workers (Slurm: Debian, as root)
	{ command -v sbatch && command -v munged; } >/dev/null || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends slurm-wlm munge >/dev/null; }
	OPTSTUDY_LAUNCHERS=required RAY_USAGE_STATS_ENABLED=0 $(BIN)/pytest -q -m long tests/launchers

lint: .venv/installed  ## formatting, style, types, import layers
	$(BIN)/ruff format --check src tests docs benchmarks examples
	$(BIN)/ruff check src tests docs benchmarks examples
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/installed  ## the documentation site: docs/_build/index.html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

package: .venv/installed  ## the wheel, built and tried in an empty environment outside the repository
	$(BIN)/python -m build --outdir dist
	$(BIN)/pytest -q -m long tests/test_package.py

bench: .venv/bench  ## step times of all optimizers beside other libraries'
	$(BIN)/optstudy bench optim

SCALE ?= pico
JOBS ?= 2
PAPER := table1 $(foreach n,1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18,fig$n)
BEYOND := horizon batch architectures adaptivity-map rivals schedules weight-decay axes rates-per-role momentum-where \
	secret-sauce rare-tokens distances fidelity

reproduce: .venv/installed  ## run every figure of the paper again from nothing; says first how many hours that takes
	$(call again,$(PAPER:%=paper/%),runs-reproduce)

reproduce-beyond: .venv/installed  ## lengths, batches, the map of adaptivity, later optimizers, print against code: the same
	$(call again,$(BEYOND:%=beyond/%),runs-reproduce)

# What they cost is said first, then they are run; the record is left out, so all of it is done anew.
define again
	$(BIN)/optstudy show $(firstword $(subst /, ,$(1))) --scale $(SCALE) --runs $(2) --jobs $(JOBS) --fresh
	set -e; for study in $(1); do \
		$(BIN)/optstudy run $$study --scale $(SCALE) --runs $(2) --jobs $(JOBS) --fresh; done
	$(BIN)/optstudy claims --scale $(SCALE) --runs $(2) --fresh
endef

# What most depends on comes first; what a study needs of another has run by then.
FIRST := paper/fig1 paper/fig9 paper/table1 paper/fig3 beyond/horizon paper/fig5
THEN := $(filter-out $(FIRST),$(PAPER:%=paper/%)) $(filter-out beyond/horizon,$(BEYOND:%=beyond/%))

record: .venv/installed  ## run what the committed record lacks, adding it study by study, and write docs/reproduction.md
	set -e; for study in $(FIRST) $(THEN); do \
		$(BIN)/optstudy run $$study --scale $(SCALE) --jobs $(JOBS); \
		$(BIN)/optstudy export --scale $(SCALE) --record src/optstudy/studies/record/$(SCALE).csv; done
	$(BIN)/python benchmarks/reproduction.py --scale $(SCALE)
	test $(SCALE) != pico || $(BIN)/python benchmarks/reproduction.py --scale pico --steps 600

install: .venv/installed

install-browser:  ## Chromium, which the tests of the reports' pages drive and are skipped without (Debian; as root)
	command -v chromium && command -v chromedriver || \
		{ apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q chromium chromium-driver; }

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

.venv/ray: .venv/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[ray]"
	touch $@

.venv/bench: .venv/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps timm
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt \
		pytorch-optimizer lion-pytorch torch-optimi heavyball
	touch $@
