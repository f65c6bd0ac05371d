# Every target sets up its own virtual environment; only Python 3.11+ and pip are needed.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test slow check bench demo-models clean

demo: .venv-demo/ready
	.venv-demo/bin/maskrt demo --out out/demo

test: .venv/ready
	$(BIN)/pytest

slow: .venv/ready
	$(BIN)/pytest -m slow

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p maskrt.runtime -p maskrt.kernels
	$(BIN)/lint-imports

bench: .venv/ready
	$(BIN)/maskrt bench soss --json out/bench/soss.json

# Trains the demo models again from nothing; needs about two hours on two cores.
demo-models: .venv/ready
	$(BIN)/python -m maskrt.export.demo.train --work out/demo-models --out export/demo/weights

clean:
	rm -rf .venv .venv-demo out build dist

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -U pip
	$(BIN)/python -m pip install -q -e ".[cpu,dev]"
	touch $@

# The demo runs in an environment of its own without PyTorch, as an edge box would have.
.venv-demo/ready: pyproject.toml
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python -m pip install -q -e ".[cpu,demo]"
	touch $@
