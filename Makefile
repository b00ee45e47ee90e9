# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint slow docs checkpoints clean
.DELETE_ON_ERROR:

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "atrous needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || { echo "making the environment in .venv"; $(PYTHON) -m venv .venv; }
	@echo "installing torch and the rest into .venv (once; some minutes, about 5 GB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)
	rm -rf demo
	$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/python -m pytest -n auto

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: $(READY)
	$(BIN)/python -m pytest -m slow

# docs/ as a site, in site/; a broken link is an error. The recipes that docs/recipes.md links to lie beside it.
docs: $(READY)
	@$(BIN)/python -c 'import zensical, mkdocstrings_handlers.python' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/zensical build --strict --clean
	mkdir -p site/recipes && cp recipes/*.yaml site/recipes/
	sed -i.bak 's#href="\.\./recipes/#href="recipes/#g' site/recipes.html && rm site/recipes.html.bak
	@echo "open site/index.html"

# every parity test, and the table of docs/checkpoints.md from what they found
checkpoints: $(READY)
	rm -rf build/proofs
	ATROUS_PROOFS=$(CURDIR)/build/proofs $(BIN)/python -m pytest -n auto -m 'slow or not slow' tests/parity
	$(BIN)/python tests/parity/write_checkpoints_md.py build/proofs

clean:
	rm -rf .venv build dist site .cache src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
