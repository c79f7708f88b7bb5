# Everything runs in .venv, made on first use from Python 3.11 to 3.13 and the pinned versions of
# constraints-cpu.txt.
#
#   make PYTHON=python3.12 ...     another interpreter
#   make TORCH_INDEX=https://download.pytorch.org/whl/cpu ...
#                                  where the default package index serves CUDA builds of torch only

PYTHON ?= python3
TORCH_INDEX ?=
PYTEST_ARGS ?=
FUZZ_SECONDS ?= 180
BENCH ?=
MEDIA := $(or $(OUTSPIKE_MEDIA),../shared/media)

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := PIP_CONSTRAINT=constraints-cpu.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-cluster test-media fuzz lint docs bench ped2 fights compare

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  \1\t/' | expand -t 16

install: $(INSTALLED)  ## make .venv and install the package with its pinned requirements

$(INSTALLED): pyproject.toml constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13; name one: make PYTHON=python3.11 ..."; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || \
	  { echo "$(PYTHON) -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PIP) install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[dev]'
	$(PIP) install --no-deps spikingjelly==2.0.0
	@touch $@

demo: $(INSTALLED)  ## the whole path on generated recordings, ending with a report
	$(BIN)/outspike demo

test: $(INSTALLED)  ## the default suite: CPU only, offline; a file's tests share a process
	$(PYTEST) -m "not slow and not gpu" -n 2 --dist loadfile

test-slow: $(INSTALLED)  ## the slow tests; a skip is a failure
	$(PYTEST) -m "slow and not gpu and not media" --no-skips

test-cluster: $(INSTALLED)  ## slow tests on several nodes: hosts of their own as root, lost in the middle of each job
	$(PYTEST) tests/cluster -m "slow and not gpu"

test-media: $(INSTALLED)  ## the tests on real recordings (OUTSPIKE_MEDIA); a skip is a failure
	$(PYTEST) -m "media and not gpu" --no-skips

fuzz: $(INSTALLED)  ## damaged event recordings: FUZZ_SECONDS of searching for branches a codec (180)
	$(PIP) install -q atheris
	@for codec in evt2 evt21 evt3 dat nmnist es aedat2 aedat4 npz mat hdf5; do \
	  NUMBA_DISABLE_JIT=1 $(BIN)/python tests/events/fuzz_codecs.py --codec $$codec --guided \
	    --seconds $(FUZZ_SECONDS) || exit 1; \
	done

lint: $(INSTALLED)  ## format check, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(INSTALLED)  ## the documentation as a site, in site/
	$(PIP) install -q -e '.[docs]'
	$(BIN)/mkdocs build --strict

bench: $(INSTALLED)  ## every table of docs/performance.md, into benchmarks-out/ (BENCH="--only crops" for one)
	$(PIP) install -q -e '.[bench]'
	$(BIN)/python benchmarks/all.py $(BENCH)

ped2: $(INSTALLED)  ## extract, train and promote the model `ped2` (OUTSPIKE_MEDIA)
	$(BIN)/python jobs/extract.py ped2 --data.root $(MEDIA)/ucsd_ped2
	$(BIN)/python jobs/train.py ped2 --data.root $(MEDIA)/ucsd_ped2
	@$(BIN)/python jobs/promote.py ped2 || { test $$? -eq 4 && echo 'The newest version of ped2 is registered and not champion: the line NO says why.'; }

fights: $(INSTALLED)  ## the same for `surv_fight`, the ensemble that cross-validation prefers
	$(BIN)/python jobs/extract.py fights --data.root $(MEDIA)/surv_fight
	$(BIN)/python jobs/train.py fights-ensemble --name surv_fight --data.root $(MEDIA)/surv_fight
	@$(BIN)/python jobs/promote.py surv_fight || { test $$? -eq 4 && echo 'The newest version of surv_fight is registered and not champion: the line NO says why.'; }

compare: $(INSTALLED)  ## every detector on the miniature set and on Ped2, in one table
	$(BIN)/python jobs/extract.py miniature
	$(BIN)/python jobs/extract.py ped2 --data.root $(MEDIA)/ucsd_ped2
	$(BIN)/python jobs/extract.py ped2-full --data.root $(MEDIA)/ucsd_ped2
	$(BIN)/outspike compare $(foreach kind,msf iefvad gvvad saa aed floor,$(kind)-miniature) --out comparison-miniature.md
	$(BIN)/outspike compare ped2 $(foreach kind,iefvad gvvad saa aed floor,$(kind)-ped2) --out comparison-ped2.md
