# Everything a newcomer needs: `make demo` and `make test`. Needs Python 3.11 or newer, make and git.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet

.PHONY: help demo test test-all test-browser check format docs notebooks bench-gpu bench-peers docs-links sbom audit clean-tree release clean pins

help:  ## say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/.ready  ## install the pinned set, train the demo, write runs/demo/report.html
	$(BIN)/exgra-med demo --out runs/demo

test: .venv/.ready-test  ## install the pinned set, run the default tests (offline)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-all: .venv/.ready-test  ## also the slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not gpu and not network and not browser"

test-browser: .venv/.ready-test .venv/.ready-docs  ## drive every page with Debian's chromium; screenshots go to runs/screenshots/
	$(PIP) playwright axe-playwright-python
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser

check: .venv/.ready-test  ## lint, format, spelling and types, as in CI; all four, whatever fails
	@failed=""; \
	$(BIN)/ruff check . || failed="$$failed ruff-check"; \
	$(BIN)/ruff format --check . || failed="$$failed ruff-format"; \
	$(BIN)/codespell || failed="$$failed codespell"; \
	$(BIN)/pyrefly check || failed="$$failed pyrefly"; \
	if [ -n "$$failed" ]; then echo "Failed:$$failed. \`make format\` mends what it can."; exit 1; fi

format: .venv/.ready-test  ## mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pins:  ## renew the pinned sets in requirements/ (needs pip-tools)
	$(BIN)/python -m piptools compile --quiet --strip-extras --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate \
	  --constraint requirements/constraints.txt --extra report --extra lora \
	  --output-file requirements/run.txt pyproject.toml requirements/build.in
	$(BIN)/python -m piptools compile --quiet --strip-extras --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate \
	  --constraint requirements/run.txt --constraint requirements/constraints.txt --extra report --extra vlm --extra lora --extra llm --extra parquet --extra excel --extra dicom --extra web --extra optim --extra tensorboard --extra dev --extra oracle \
	  --output-file requirements/test.txt pyproject.toml requirements/build.in
	$(BIN)/python -m piptools compile --quiet --strip-extras --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate \
	  --constraint requirements/test.txt --extra report --extra docs \
	  --output-file requirements/docs.txt pyproject.toml requirements/build.in
	@# A pin holds for every build of torch, so it names neither a build nor what only CUDA's brings.
	sed -i -E 's/\+cpu$$//; /^(nvidia|cuda)-|^triton=/d' requirements/run.txt requirements/test.txt requirements/docs.txt

docs: .venv/.ready-docs  ## build the documentation into docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -b html -W --keep-going -n -q docs docs/_build/html
	$(BIN)/python -m sphinx -b doctest -W --keep-going -n -q docs docs/_build/doctest
	@echo "Open docs/_build/html/index.html"

notebooks: .venv/.ready-test  ## run the documentation's notebooks anew and keep their outputs in them
	$(PIP) nbclient ipykernel
	OMP_NUM_THREADS=1 $(BIN)/python tools/run_notebooks.py

# In the environment of PYTHON, which has a torch for the card: the pinned set is one for any machine.
bench-gpu:  ## measure one GPU in ten minutes (ARGS=--miniature: the same, tiny, on a CPU)
	PYTHONPATH=src $(PYTHON) benchmarks/gpu.py --out runs/bench-gpu.json $(ARGS)

bench-peers: .venv/.ready-test  ## measure this package beside what one would use instead (DATA=a prepared SLAKE)
	OMP_NUM_THREADS=1 PYTHONPATH=src $(BIN)/python benchmarks/peers/run.py --data $(or $(DATA),data/slake) --out runs/bench-peers.json $(ARGS)

docs-links: .venv/.ready-docs  ## also look up external links (needs the internet)
	$(BIN)/python -m sphinx -b linkcheck -q docs docs/_build/links

sbom: .venv/.ready  ## list what an installation consists of, as CycloneDX: exgra-med.sbom.json
	$(PIP) cyclonedx-bom
	$(BIN)/python tools/sbom.py exgra-med.sbom.json

audit: .venv/.ready  ## look the pinned sets up among known vulnerabilities (needs the internet)
	$(PIP) pip-audit
	$(BIN)/python -m pip_audit --strict --no-deps -r requirements/run.txt
	$(BIN)/python -m pip_audit --strict --no-deps -r requirements/test.txt

# A file that git does not track would be packed, and nobody else could build the same.
clean-tree:
	@changes="$$(git status --porcelain)" || exit 1; \
	if [ -n "$$changes" ]; then echo "A release is built from a commit, and this tree has changes:"; \
	echo "$$changes"; echo "Commit them, or move them away."; exit 1; fi

release: clean-tree .venv/.ready-test  ## build wheel and sdist of a commit into dist/ and look into them
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	EXGRA_MED_DIST=dist $(BIN)/python -m pytest -rw -m "" tests/packaging

clean:  ## remove the environment and the demo's run
	rm -rf .venv runs/demo

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "exgra-med needs Python 3.11 or newer; say which with: make PYTHON=python3.11 ...")'
	@echo "Making the environment .venv ..."
	$(PYTHON) -m venv .venv

.venv/.ready: requirements/run.txt pyproject.toml | .venv/bin/python
	@echo "Installing the pinned set (1.5 GB with a CPU build of torch, 6 GB with CUDA; some minutes) ..."
	$(PIP) -r requirements/run.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.ready-test: requirements/test.txt .venv/.ready
	@echo "Installing the pinned test set ..."
	$(PIP) -r requirements/test.txt
	@touch $@

.venv/.ready-docs: requirements/docs.txt .venv/.ready
	@echo "Installing what builds the documentation ..."
	$(PIP) -r requirements/docs.txt
	@touch $@
