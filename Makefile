# make demo    protect the bundled CT        make test    lint and tests
# make lint    ruff and mypy                 make format  what ruff can mend by itself
# make env     the environment only          make clean   remove environment, caches and demo output
#
# WORKERS=4                   test processes; each wants a core and up to 2 GB
# PYTHON=python3.12           another interpreter (3.11 or later)
# PIP_FLAGS="--no-index --find-links wheels"   a site without internet; any other flag of pip install

PYTHON ?= python3
PIP_FLAGS ?=
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install $(PIP_FLAGS) --constraint constraints.txt
CT := Resources/SampleData/totalseg_ct

.PHONY: demo test lint format env library-list clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/medprotect protect $(CT)/ct.nii.gz --labels $(CT)/labels.seg.nrrd --segments liver \
		--output demo_output --target-psnr 50.1 --overwrite

test: lint
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

lint: env
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: env
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

env: $(VENV)/.installed-dev

# MedProtectLib/CMakeLists.txt names every file of the library
library-list:
	$(PYTHON) Testing/library_list.py

# An empty stamp tells which requirements were installed; a later run installs again only after these files changed.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis demo_output demo_output_private
	find MedProtectLib Testing Resources -name __pycache__ -type d -prune -exec rm -rf {} +
