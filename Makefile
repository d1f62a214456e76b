# make help lists the commands. Each of them is a line or two that you could type yourself.
.DEFAULT_GOAL := help
.PHONY: help tutorial telco test test-fast test-parity matrix benchmark ui stop pictures \
	check-pictures clean lint

# Succeeds where a Python is one that the pinned packages support.
SUITABLE = import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))
# The first suitable one; choose another with  make PYTHON=/path/to/python
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
	"$$python" -c '$(SUITABLE)' 2>/dev/null && \
	echo "$$python" && break; done)
CHROMIUM = $(shell for name in "$$CMLFLOW_BROWSER" chromium chromium-browser google-chrome; do \
	command -v "$$name" && break; done)
PORT ?= 5000
WORKAREA := $(or $(CMLFLOW_WORKAREA),$(CURDIR))
# Two tests at a time; those of one file stay together and share what they made.
PYTEST = -m pytest --numprocesses 2

define require_python
test -n "$(PYTHON)" || { echo "No Python 3.10, 3.11 or 3.12 found. Install one, or name it:"; \
	echo "  make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }; \
"$(PYTHON)" -c '$(SUITABLE)' 2>/dev/null || { \
	echo "$(PYTHON) is no Python 3.10, 3.11 or 3.12. Name another:"; \
	echo "  make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
endef

define require_store
test -f "$(WORKAREA)/mlflow.db" || { \
	echo "Nothing has been logged yet. Run this first:  make tutorial"; exit 1; }
endef

# An environment is complete when its last line has run: the marker file, not the folder, tells.
# --no-compile: most of the modules are never imported, and Python compiles those that are, once, if
# nothing forbids it to keep the result.
unexport PYTHONDONTWRITEBYTECODE
define environment
	@$(require_python)
	@echo "Installing $(1) into $(2) (once; this takes some minutes)"
	@"$(PYTHON)" -m venv --clear "$(2)"
	@"$(2)/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check -r "$(1)"
	@touch "$@"
endef

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 22

tutorial: .venv/archive  ## run all lessons and say where to look
	@.venv/bin/python tutorial.py

telco: .venv/archive  ## run Part 4 only, and four days of its loop
	@.venv/bin/python tutorial.py --telco

test: .venv/complete  ## run all tests
	@.venv/bin/python $(PYTEST)

test-fast: .venv/complete  ## run the tests that need no Spark
	@.venv/bin/python $(PYTEST) -m "not spark"

# Two of the four passes through the lessons at a time, and Parts 3 and 4 with a workbench
test-parity: .venv-parity/addon/complete  ## run all lessons in a stand-in for a CML session
	@.venv-parity/bin/python $(PYTEST) tests/test_in_cml.py tests/test_part3_in_cml.py \
		tests/test_telco_in_cml.py

matrix: .venv/complete  ## run all lessons on each set of releases (an hour; CELL=laptop-3.12 for one)
	@.venv/bin/python tests/matrix.py $(addprefix --cell ,$(CELL))

benchmark: .venv/archive  ## time the lessons, and write benchmarks/README.md (about ten minutes)
	@.venv/bin/python -m benchmarks

# Ctrl+C is the shell's: Python, while it starts, would answer with a traceback.
ui: export CDSW_APP_PORT = $(PORT)
ui:  ## start the MLflow UI on what the lessons logged (PORT=5000)
	@test -z "$$MLFLOW_TRACKING_URI" || { echo "MLFLOW_TRACKING_URI is set: the runs are there."; \
		echo "For the local store:  unset MLFLOW_TRACKING_URI"; exit 1; }
	@$(require_store)
	@$(MAKE) --silent .venv/complete
	@trap 'kill $$! 2>/dev/null; echo Stopped; exit 0' INT TERM; .venv/bin/python cml/mlflow_ui.py & wait $$!

stop:  ## end the endpoints that the lessons started
	@if test -x .venv/bin/python; then .venv/bin/python -m cmlflow.serving --stop; \
		else $(require_python); "$(PYTHON)" -m cmlflow.serving --stop; fi

# On what the lessons logged, here or in the folder that CMLFLOW_WORKAREA names
pictures:  ## take the pictures in img/ again (needs Chromium)
	@$(require_store)
	@$(MAKE) --silent .venv/complete .venv-pictures/complete
	@.venv-pictures/bin/python -m img.take_pictures

check-pictures:  ## look in the UI for what pictures and texts say (needs Chromium)
	@$(require_store)
	@if test -n "$(CHROMIUM)$$CI"; then \
		$(MAKE) --silent .venv/complete .venv-pictures/complete && \
		.venv-pictures/bin/python -m img.take_pictures --check; \
	else echo "Pictures not checked: no Chromium here (apt-get install chromium)"; fi

# Any Python will do: an environment is not installed only to remove files.
clean:  ## remove what the lessons made (not the environment)
	@if test -x .venv/bin/python; then .venv/bin/python tutorial.py --clean; \
		else $(require_python); "$(PYTHON)" tutorial.py --clean; fi

lint: .venv/complete  ## check style
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .

.venv/complete: requirements-local.txt requirements.txt pyproject.toml
	$(call environment,requirements-local.txt,.venv)

# Spark starts faster with it, and without it all the same.
.venv/archive: .venv/complete
	@.venv/bin/python -m cmlflow.spark.archive >/dev/null && touch "$@" || true

.venv-parity/complete: requirements-parity.txt requirements.txt pyproject.toml
	$(call environment,requirements-parity.txt,.venv-parity)

.venv-pictures/complete: requirements-pictures.txt
	$(call environment,requirements-pictures.txt,.venv-pictures)

.venv-parity/addon/complete: tests/standins/addon.txt .venv-parity/complete
	@.venv-parity/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--upgrade --target .venv-parity/addon -r tests/standins/addon.txt
	@rm -rf .venv-parity/addon/*.dist-info .venv-parity/addon/*.egg-info
	@touch "$@"
