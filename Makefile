# make demo: the main job on a real model.  make test: every test.  make test-ui: pages in a browser.
# make test-gpu: the tests of the kernels, and of what runs them, on the GPU of this machine, compiled.
# make soak: faults of the service at length, into benchmarks/results/soak.csv.  make check: format, lint, types.
PYTHON ?= python3
TEST_PROCESSES ?= 3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

SOAK := tests/workers tests/store tests/api

.PHONY: demo test test-ui test-gpu soak check docs clean

demo: $(VENV)/installed
	$(BIN)/python examples/demo.py

test: $(VENV)/installed-tests
	@# Images of containers forbid to keep compiled files: each of hundreds of processes would compile.
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-ui: $(VENV)/installed-tests
	@if [ "$$(id -u)" = 0 ] && ! command -v chromium >/dev/null; then apt-get update -q && apt-get install -q -y chromium; fi
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/ui tests/test_dashboard.py

test-gpu: $(VENV)/installed-tests
	@$(BIN)/python -c "import sys, torch; torch.cuda.is_available() or sys.exit('No GPU here: make test runs the same tests, interpreted.')"
	$(BIN)/python -m pytest tests/kernels tests/models/test_siblings.py tests/models/test_decoding.py

soak: $(VENV)/installed-tests
	BITFRONT_SOAK=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --timeout 3600 -v -m fault $(SOAK)

check: $(VENV)/installed-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_imports.py tests/test_public_names.py

docs: $(VENV)/installed-tests
	$(BIN)/python docs/choosing.py
	$(BIN)/python benchmarks/tables.py

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/installed-tests: $(VENV)/installed
	$(BIN)/pip install -q -c constraints.txt -e ".[test,check]"
	@# Apart: where torchvision is, all of transformers imports it, which takes seconds.
	$(BIN)/pip install -q -c constraints.txt --no-deps --upgrade --target $(VENV)/timm timm torchvision
	touch $@

clean:
	rm -rf $(VENV) build dist demo
