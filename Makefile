# Everything lives in .venv; `make demo TORCH="torch"` takes another PyTorch than the tested one.
TORCH  ?= torch==2.13.0
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)

# one stamp per choice of TORCH, so that another choice installs again
STAMP := .venv/.installed-$(shell printf '%s' '$(TORCH)' | cksum | cut -d' ' -f1)

.DEFAULT_GOAL := help
.PHONY: help demo lint test lock browser

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: $(STAMP)  ## install, then train and test a forecaster on the embedded series (no download)
	.venv/bin/titans-seq fit forecast

lint: $(STAMP)  ## install, then check style, format and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/clang-format --dry-run --Werror kernels/native/*.[ch]
	.venv/bin/mypy

# one process per core with one thread each takes half the time of one process with a thread per core
test: $(STAMP)  ## install, then run the tests
	OMP_NUM_THREADS=1 .venv/bin/pytest --numprocesses auto

lock: $(STAMP)  ## write requirements.lock anew, from constraints.txt and the package index
	.venv/bin/pip install --quiet pip-tools
	.venv/bin/python .ci/lock.py

# for root only: elsewhere the test of the report takes the chromium that is there, or is skipped
browser:  ## install Debian's chromium, which a test draws the report in, if there is none
	@command -v chromium || { apt-get update --quiet --quiet && \
		DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends chromium; }

# PyTorch comes first and alone: the project then keeps whatever was chosen, also a build for another device
$(STAMP): pyproject.toml constraints.txt setup.py $(wildcard kernels/native/*)
	@test -n "$(PYTHON)" || { echo "no Python found: install Python 3.11 or later, or say make PYTHON=..." >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old: install Python 3.11 or later, or say make PYTHON=..." >&2; exit 2; }
	test -x .venv/bin/pip || "$(PYTHON)" -m venv .venv
	.venv/bin/pip install --quiet $(TORCH)
	.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@rm -f .venv/.installed-* && touch $@
