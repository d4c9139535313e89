# `make demo` and `make test` set up everything they need; the second run starts at once.
.PHONY: setup demo test lint bench docs
BIN := .venv/bin

setup:
	@PYTHON=$(PYTHON) bash .ci/setup

demo: setup  ## napari on a sample, analysed, docks open; your own file: make demo IMAGE=my.dm4
	$(BIN)/napari-rvae demo $(IMAGE)

test: setup  ## a part of it: make test ARGS=tests/atoms
	$(BIN)/pytest $(if $(ARGS),,--cov) $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/validate-pyproject pyproject.toml
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: setup
	$(BIN)/pip install -q -c constraints.txt -e '.[bench]'
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

docs: setup  ## into site/
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict
