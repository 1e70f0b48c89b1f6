# `make run` and `make test` are all that a newcomer needs; both begin with `make setup`.
# ARGS is handed on: make run ARGS="--port 9000", make test ARGS="-k stream -x".

BIN   := .venv/bin
READY := .venv/.ready
LOCK  := uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
         --no-emit-find-links --no-strip-extras --custom-compile-command "make lock" $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup run demo bot watch test lint coverage bench torture faults clients lock clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1 /p' $(MAKEFILE_LIST) | while read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

setup: $(READY) ## make .venv/ from the hash-locked requirements (with uv where it is installed, else with pip)

$(READY): pyproject.toml requirements/dev.txt tools/setup
	@tools/setup
	@touch $@

run: setup ## serve the gateway on 127.0.0.1:8000
	@exec $(BIN)/keyturn serve $(ARGS)

demo: setup ## watch a rehearsed story on simulated providers
	@exec $(BIN)/keyturn demo $(ARGS)

bot: setup ## run the Discord bot
	@exec $(BIN)/keyturn bot $(ARGS)

watch: setup ## watch a folder of tasks
	@exec $(BIN)/keyturn watch $(ARGS)

test: export PYTHONDONTWRITEBYTECODE =
test: setup ## run the tests
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup ## check style, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

coverage: setup ## run the tests and show what they do not reach (terminal, and htmlcov/index.html)
	@$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered --cov-report=html $(ARGS)

bench: setup ## measure the gateway against a bare relay, in one run (ARGS=--quick for a short one)
	@$(BIN)/python -m tools.bench $(ARGS)

torture: setup ## run the long checks at full size
	@$(BIN)/python -m tools.torture $(ARGS)

faults: setup ## play the matrix of faults and write what came of it into docs/faults.md
	@$(BIN)/python -m tools.faults $(ARGS)

clients: setup ## run real tools and SDKs through the gateway, over simulated models (needs npm)
	@$(BIN)/python -m tools.clients $(ARGS)

lock: ## pin the dependencies again (needs uv; ARGS=--upgrade takes the newest)
	@$(LOCK) pyproject.toml -o requirements/base.txt
	@$(LOCK) pyproject.toml --extra redis --extra postgres -c requirements/base.txt -o requirements/replicas.txt
	@$(LOCK) pyproject.toml --group dev -c requirements/replicas.txt -o requirements/dev.txt
	@! grep -nE '://|--(index-url|extra-index-url|find-links)' requirements/*.txt

clean: ## remove what was built and installed here; your data in .cache/ stays
	@rm -rf .venv .coverage .coverage.* htmlcov build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
