# Everything runs in .venv, which is made from PYTHON and requirements.lock the first time it is needed.
PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
UV := $(shell command -v uv 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help demo dev test lint audit bench bench-quick bench-peers crash sql up down lock clean clean-data

help: ## print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "ARGS=... is handed on by demo, dev, test, bench, bench-peers, crash, sql and lock, as in: make test ARGS='-n 0 -k plan'"

demo: $(INSTALLED) ## see it work: embedded broker, generator, Dagster; CI=true or DEMO_SECONDS=n ends by itself
	@$(BIN)/python -m archiver_pipeline.demo $(ARGS)

dev: $(INSTALLED) ## Dagster's UI, daemon and sensor against the configured broker
	@$(BIN)/python -m archiver_pipeline.dev $(ARGS)

test: $(INSTALLED) ## the whole suite by three processes, each with a real Kafka and S3 server (Java 17, Maven, Go, openssl)
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(INSTALLED) ## ruff (rules and format) and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

audit: $(INSTALLED) ## the locked dependencies: pins and hashes, then known vulnerabilities (asks the index and its advisories)
	@$(BIN)/python -m pytest -q -n 0 archiver_pipeline_tests/test_lock.py
	@$(PYTHON) -m venv .cache/audit && .cache/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@.cache/audit/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

bench: $(INSTALLED) ## the benchmark
	@$(BIN)/python -m bench $(ARGS)

bench-quick: $(INSTALLED) ## has it become slower? three minutes, against the ratios of the last time
	@$(BIN)/python -m bench.quick $(ARGS)

bench-peers: $(INSTALLED) ## against Spark, Flink, Kafka Connect and a loop; fetches them the first time (Java 17, Maven)
	@$(BIN)/python -m bench.peers $(ARGS)

crash: $(INSTALLED) ## kill the archiver again and again, then prove that nothing was lost or doubled
	@$(BIN)/python -m archiver_pipeline_tests.crash $(ARGS)

sql: $(INSTALLED) ## SQL shell on the archive's view
	@$(BIN)/archiver sql $(ARGS)

up: ## Kafka, a producer, the archiver and all that it works with in containers; waits until all of them are well
	@docker compose version >/dev/null 2>&1 || { echo "make up: needs Docker with the Compose plugin" >&2; exit 2; }
	@docker compose up --detach --build --wait
	@echo "Dagster     http://localhost:3000"
	@echo "Status      http://localhost:9464"
	@echo "Grafana     http://localhost:3001"
	@echo "Prometheus  http://localhost:9090"
	@echo "SQL         docker compose exec code archiver sql"

down: ## stop the containers, keep their data
	@docker compose down

lock: ## write requirements.lock, and the image's in deploy/, anew from pyproject.toml (needs uv); ARGS=--upgrade takes newer releases
	@test -n "$(UV)" || { echo "make lock: needs uv, and there is none on PATH; install it, then run this again" >&2; exit 2; }
	@$(UV) pip compile pyproject.toml --extra dev --extra deploy --quiet --output-file requirements.lock --generate-hashes --no-header \
		--universal --python-version 3.11 --fork-strategy fewest --no-strip-extras $(ARGS)
	@# The image's: the same versions, without what only development needs; and what builds the package.
	@$(UV) pip compile pyproject.toml --extra deploy --constraint requirements.lock --quiet --output-file deploy/requirements.lock \
		--generate-hashes --no-header --universal --python-version 3.11 --fork-strategy fewest --no-strip-extras --no-annotate
	@printf 'hatchling\neditables\n' | $(UV) pip compile - --constraint requirements.lock --quiet --output-file deploy/build.lock \
		--generate-hashes --no-header --universal --python-version 3.11 --fork-strategy fewest --no-annotate

clean: ## remove what make and its tools have made; the archive stays
	@rm -rf .venv .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	@find . \( -path ./.git -o -path ./data \) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

clean-data: ## remove the archive and all else under data/; there is no way back
	@rm -rf data/archive data/archive.duckdb* data/aggregates data/dagster_home data/demo

# The first line that can fail says why in one sentence; make itself then ends with exit code 2.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "make: needs Python 3.11 or newer, but '$(PYTHON) -V' says: $$($(PYTHON) -V 2>&1 | head -n 1);" \
			"name another one: make PYTHON=python3.12 ..." >&2; exit 2; }
ifneq ($(UV),)
	@echo "Installing requirements.lock into .venv with uv ..."
	@test -x $(BIN)/python || { rm -rf .venv && $(UV) venv --quiet --python "$(PYTHON)" .venv; }
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps -e .
else
	@echo "Installing requirements.lock into .venv with pip, about a minute the first time ..."
	@test -x $(BIN)/pip || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
endif
	@touch $@
