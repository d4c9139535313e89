# `make demo` and `make test` set up everything they need; the second run starts at once.
.PHONY: setup demo test lint bench docs
BIN := .venv/bin

setup:
	@PYTHON=$(PYTHON) bash .ci/setup

demo: setup  ## napari on a sample, analysed, docks open; your own file: make demo IMAGE=my.dm4
	$(BIN)/napari-rvae demo $(IMAGE)

test: setup  ## a part of it: make test ARGS=tests/atoms
	$(BIN)/pytest $(if $(ARGS),,--cov -n 2 --dist loadfile) $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos
	$(BIN)/validate-pyproject pyproject.toml
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: setup .venv-bench/ready  ## hours; a part of the engine's: make bench ARGS='kinds --quick'
	$(BIN)/pip install -q -c constraints.txt -e '.[bench]'
	$(if $(ARGS),,for name in atoms explore layers window; do $(BIN)/python benchmarks/$$name.py || exit 1; done)
	$(BIN)/python benchmarks/rvae.py $(ARGS)
	$(if $(ARGS),,$(BIN)/python benchmarks/family.py)

.venv-bench/ready: benchmarks/peers.txt constraints.txt
	$(BIN)/python -m venv .venv-bench
	.venv-bench/bin/pip install -q --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu \
		-c constraints.txt -r benchmarks/peers.txt
	.venv-bench/bin/pip install -q --no-deps atomai==0.8.1 pyroved==0.3.0
	touch $@

docs: setup  ## into site/
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict
