# Everything that is done with this repository; `make help` lists it.
#
# Each target makes what it needs, once, inside .venv. The package is installed there as a user
# would have it, and again after a change to the sources. After `make setup` it is an editable
# install instead: Python edits are seen at once, C++ edits are compiled at the next import.
#
#   make test ARGS="-k spill"           arguments for pytest, for `soardb demo`, for the benchmarks
#   make PYTHON=/path/to/python3.12     another interpreter than the one that is found
#   make CXX=clang++                    another compiler

SHELL := /bin/sh
.DEFAULT_GOAL := check
.NOTPARALLEL:
.DELETE_ON_ERROR:

ifeq ($(origin CXX),default)
CXX :=
endif
export PYTHON CXX
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1

ARGS    :=
BIN     := .venv/bin
PYTHON3 := $(BIN)/python
STAMPS  := .venv/stamps
# -P: the source tree must not hide the installed package, which alone has the compiled kernels.
# The environment has the repository as its last place to look, for `benchmarks`. An editable
# install finds CMake through PATH.
INPATH  := PATH="$(CURDIR)/$(BIN):$$PATH"
RUN     := $(INPATH) $(PYTHON3) -P -m

# Folders count as sources, so that a deleted file is noticed too.
SOURCES := pyproject.toml $(shell find native soardb proto service client \
             -name __pycache__ -prune -o -print 2>/dev/null)
# After `make setup` the package is an editable install, which looks after itself.
PACKAGE := $(or $(wildcard $(STAMPS)/editable),$(STAMPS)/package)
# Compiled objects stay in build/ from one install to the next; with an isolated build the headers
# of nanobind would lie in a new folder each time, and everything would be compiled anew.
INSTALL := CXX="$$(.ci/need compiler)" && export CXX && $(PYTHON3) -m pip install -q
BUILD   := --no-build-isolation --no-deps

.PHONY: check help setup demo test proto model crash powercut damage test-neon test-llama-index \
        fuzz attacks ray-kills ray-nodes fmt lint types docs bench bench-ingest bench-service bench-batch bench-churn \
        bench-filters bench-scale bench-target bench-kernels bench-topk bench-rpc bench-soar \
        bench-layout bench-precision bench-merge bench-cluster bench-cluster-build cluster-sim \
        bench-select bench-select-training bench-decide bench-diagnose bench-distillspec bench-tandem \
        bench-pretrained bench-raptr bench-spactor bench-encoders bench-agent bench-hire-lm \
        bench-ann bench-vectordbbench profile clean

check: lint types docs test  ## what continuous integration runs; plain `make` is the same

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
	    while IFS='|' read -r target what; do printf '  %-19s %s\n' "$$target" "$$what"; done

# ---- environments ----

$(STAMPS)/environment: pyproject.toml .ci/need .ci/requirements
	rm -rf build
	python="$$(.ci/need python)" && "$$python" -m venv .venv
	pwd > "$$($(PYTHON3) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/checkout.pth"
	@mkdir -p $(STAMPS)
	$(PYTHON3) .ci/requirements build > $@.txt
	$(PYTHON3) -m pip install -q -r $@.txt
	@touch $@

# One stamp an extra: .venv/stamps/extra-test says that what soardb[test] needs is installed.
$(STAMPS)/extra-%: $(STAMPS)/environment
	$(PYTHON3) .ci/requirements $* > $@.txt
	$(INSTALL) -r $@.txt
	@touch $@

$(STAMPS)/package: $(STAMPS)/environment $(SOURCES)
	$(INSTALL) $(BUILD) .
	@touch $@

$(STAMPS)/editable: $(STAMPS)/environment
	$(INSTALL) $(BUILD) --config-settings=editable.rebuild=true -e .
	@touch $@

setup: $(STAMPS)/extra-dev $(STAMPS)/editable  ## an editable install with every development tool

# ---- what users run ----

demo: $(STAMPS)/extra-demo $(PACKAGE)  ## build an index over real word vectors and ask it a few words
	$(INPATH) $(BIN)/soardb demo $(ARGS)

test: $(STAMPS)/extra-test $(PACKAGE)  ## all tests, against the installed package
	$(RUN) pytest -n $(or $(JOBS),2) --dist loadfile --durations 25 $(ARGS)

# ---- what developers run ----

model: $(STAMPS)/extra-test $(PACKAGE)  ## random calls against a model of a collection, 20,000 steps or so
	SOARDB_MODEL_EXAMPLES=$(or $(EXAMPLES),150) $(RUN) pytest -q -s tests/collections/test_model.py $(ARGS)

crash: $(STAMPS)/extra-test $(PACKAGE)  ## kill it under load, open, check: 200 times on one directory
	$(RUN) tests.crash.harness $(ARGS)

powercut: $(STAMPS)/extra-test $(PACKAGE)  ## cut the power at any system call: 1,000 states of the disk
	$(RUN) tests.crash.powercut $(ARGS)

damage: $(STAMPS)/extra-test $(PACKAGE)  ## damage every kind of file: 2,000 times and more
	$(RUN) tests.crash.damage $(ARGS)

fuzz: $(STAMPS)/extra-test $(PACKAGE)  ## hostile requests to every method of the server: 100,000
	$(RUN) tests.service.fuzz $(ARGS)

attacks: $(STAMPS)/extra-test $(PACKAGE)  ## slow, stalled and flooding clients beside one that is to be served
	$(RUN) tests.service.attacks $(ARGS)

ray-kills: $(STAMPS)/extra-test $(PACKAGE)  ## shards, registrar and drivers of a Ray cluster killed under load: 100 times
	$(RUN) tests.cluster.kills $(ARGS)

ray-nodes: $(STAMPS)/extra-test $(PACKAGE)  ## three Ray nodes in namespaces of their own: same answers, shards that move (root)
	$(RUN) tests.cluster.on_nodes $(ARGS)

proto: $(STAMPS)/extra-test  ## the Python of the protocol, from its .proto files
	$(PYTHON3) .ci/protoc proto
# The tests are in no package. A clone that is there is used with LLAMA_INDEX=folder.
LLAMA_INDEX ?= build/llama_index
build/llama_index: | $(STAMPS)/extra-test
	git clone -q --depth 1 --filter=blob:none --sparse https://github.com/run-llama/llama_index $@
	git -C $@ sparse-checkout set llama-index-core/tests/vector_stores

test-llama-index: $(STAMPS)/extra-test $(PACKAGE) | $(LLAMA_INDEX)  ## LlamaIndex's tests of its simple vector store, on ours
	$(RUN) pytest -p tests.integrations.simple_store_tests --rootdir . -c pyproject.toml \
	    $(abspath $(LLAMA_INDEX))/llama-index-core/tests/vector_stores/test_simple.py $(ARGS)

test-neon: $(STAMPS)/environment  ## the kernel tests on an emulated ARM machine
	$(INPATH) tests/neon/run.sh

fmt: $(STAMPS)/extra-dev  ## rewrite the sources in the house format
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format .

lint: $(STAMPS)/extra-dev  ## style and format of the Python sources
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMPS)/extra-dev  ## mypy --strict over everything
	$(BIN)/mypy

docs: $(STAMPS)/extra-docs  ## the documentation, strictly, into site/
	$(BIN)/mkdocs build --strict -q

bench: $(STAMPS)/extra-bench $(PACKAGE)  ## soardb and its peers on the same data: JSON, plot and table
	$(RUN) benchmarks.bench_peers $(or $(ARGS),--dataset glove6b-100-angular)

bench-soar: $(STAMPS)/extra-bench $(PACKAGE)  ## SOAR on against off at equal recall, over lambda: JSON, plot and table
	$(RUN) benchmarks.bench_soar $(or $(ARGS),--dataset glove6b-100-angular)

bench-precision: $(STAMPS)/extra-bench $(PACKAGE)  ## float32, bfloat16 and int8 vectors side by side: bytes, recall, time
	$(RUN) benchmarks.bench_precision $(or $(ARGS),--dataset glove6b-100-angular)

bench-layout: $(STAMPS)/extra-bench $(PACKAGE)  ## layouts chosen by measuring beside the formulas': JSON, plot and table
	$(RUN) benchmarks.bench_layout $(or $(ARGS),--dataset glove6b-100-angular)

# The extension once more, with clocks between the stages of a search.
profile: $(STAMPS)/extra-bench $(PACKAGE)  ## where a query's time goes, stage by stage
	@mkdir -p build
	CXX="$$(.ci/need compiler)" && export CXX && $(INPATH) cmake -S native -B build/profile -G Ninja \
	    -DSOARDB_PROFILE=ON -DPython_EXECUTABLE="$(CURDIR)/$(PYTHON3)" > build/profile.log
	$(INPATH) cmake --build build/profile --target _native >> build/profile.log
	$(RUN) benchmarks.bench_profile --clocks build/profile $(or $(ARGS),--dataset glove6b-100-angular)

bench-ingest: $(STAMPS)/extra-bench-ingest $(PACKAGE)  ## durable writing beside embedded databases: JSON, plot and table
	$(RUN) benchmarks.bench_ingest $(or $(ARGS),--dataset glove6b-100-angular)

bench-service: $(STAMPS)/extra-bench-service $(PACKAGE)  ## load on vector servers, soardb's and others: JSON, plot and table
	$(RUN) benchmarks.bench_service $(or $(ARGS),--dataset glove6b-100-angular)

bench-rpc: $(STAMPS)/extra-bench-service $(PACKAGE)  ## the ceilings of gRPC servers in Python
	$(RUN) benchmarks.bench_rpc $(ARGS)

bench-select: $(STAMPS)/extra-bench-select $(PACKAGE)  ## selection at a million points, beside NumPy and apricot: JSON, plot and table
	$(RUN) benchmarks.bench_select $(ARGS)

bench-select-training: $(STAMPS)/extra-bench-select $(PACKAGE)  ## accuracy of networks trained on what each method selects: JSON, plot and table
	$(RUN) benchmarks.bench_select_training $(or $(ARGS),digits)

bench-decide: $(STAMPS)/extra-bench-decide $(PACKAGE)  ## rules of decision by metrics, over neighbours and a transformer: JSON, plots and table
	$(RUN) benchmarks.bench_decide $(ARGS)

bench-diagnose: $(STAMPS)/extra-bench-diagnose $(PACKAGE)  ## bias and variance of networks over their width: JSON, plot and table
	$(RUN) benchmarks.bench_diagnose $(ARGS)

bench-distillspec: $(STAMPS)/extra-bench-decide $(PACKAGE)  ## drafts distilled by texts and divergence: acceptance, tau, time: JSON, plot and table
	$(RUN) benchmarks.bench_distillspec $(ARGS)

bench-tandem: $(STAMPS)/extra-bench-decide $(PACKAGE)  ## Tandem beside the small model alone and distilled: JSON, plot and table
	$(RUN) benchmarks.bench_tandem $(ARGS)

bench-pretrained: $(STAMPS)/extra-bench-hire-lm $(PACKAGE)  ## SmolLM2 with a draft that is distilled to it: acceptance, tau, time: JSON, plot and table
	$(RUN) benchmarks.bench_pretrained $(ARGS)

bench-raptr: $(STAMPS)/extra-bench-decide $(PACKAGE)  ## RaPTr beside the whole network, stacking, dropping; and its theory: JSON, plots and tables
	$(RUN) benchmarks.bench_raptr_theory $(ARGS)
	$(RUN) benchmarks.bench_raptr $(ARGS)

bench-spactor: $(STAMPS)/extra-bench-decide $(PACKAGE)  ## SpacTor beside span corruption alone: clean loss, accuracy, operations: JSON, plot and table
	$(RUN) benchmarks.bench_spactor $(ARGS)

bench-encoders: $(STAMPS)/extra-bench-decide $(PACKAGE)  ## encoders pretrained here, as embedders beside MiniLM and BM25: JSON, plot and table
	$(RUN) benchmarks.bench_encoders $(ARGS)

bench-agent: $(STAMPS)/extra-bench-agent $(PACKAGE)  ## an agent that learns from its own searches, by generation: JSON, plot and table
	$(RUN) benchmarks.bench_agent $(ARGS)

bench-hire-lm: $(STAMPS)/extra-bench-hire-lm $(PACKAGE)  ## HiRE on a language model's head and feed-forward parts: JSON, plot and table
	unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE; $(RUN) benchmarks.bench_hire_lm $(ARGS)

bench-churn: $(STAMPS)/extra-bench $(PACKAGE)  ## recall while points come, go and change
	$(RUN) benchmarks.bench_churn $(ARGS)

bench-batch: $(STAMPS)/extra-bench $(PACKAGE)  ## batches of queries beside ScaNN and faiss: JSON and plot
	$(RUN) benchmarks.bench_batch $(or $(ARGS),glove6b-100-angular)

bench-filters: $(STAMPS)/extra-bench $(PACKAGE)  ## filtered search at each selectivity
	$(RUN) benchmarks.bench_filters $(ARGS)

bench-topk: $(STAMPS)/extra-bench $(PACKAGE)  ## top-k, HiRE and DA-TOP-k: recall predicted and measured, time
	unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE; $(RUN) benchmarks.bench_topk $(ARGS)

bench-target: $(STAMPS)/extra-bench $(PACKAGE)  ## recall asked, expected and found
	$(RUN) benchmarks.bench_target $(ARGS)

bench-cluster-build: $(STAMPS)/extra-bench $(STAMPS)/extra-ray $(PACKAGE)  ## recall and times of a build over shards, beside a local one
	$(RUN) benchmarks.bench_cluster_build $(ARGS)

bench-ann: $(STAMPS)/extra-bench $(STAMPS)/extra-server $(PACKAGE)  ## ann-benchmarks itself, embedded and through gRPC
	$(RUN) benchmarks.ann_benchmarks.bench $(ARGS)

bench-vectordbbench: $(STAMPS)/extra-bench $(STAMPS)/extra-server $(PACKAGE)  ## VectorDBBench itself, on a server of ours
	$(RUN) benchmarks.vectordbbench.bench $(ARGS)

bench-scale: $(STAMPS)/extra-bench $(PACKAGE)  ## cost against size, up to ten million vectors
	$(RUN) benchmarks.bench_scale $(ARGS)

bench-merge: $(STAMPS)/extra-bench $(STAMPS)/extra-ray $(PACKAGE)  ## recall of the merge over 2 to 16 shards, predicted and measured
	$(RUN) benchmarks.bench_merge $(ARGS)

bench-cluster: $(STAMPS)/extra-bench $(STAMPS)/extra-ray $(PACKAGE)  ## a cluster beside one collection: same answers, overhead a query
	$(RUN) benchmarks.bench_cluster $(ARGS)

cluster-sim: $(STAMPS)/extra-bench $(PACKAGE)  ## how many shards, from measured costs: latency, bytes, memory, cost
	$(RUN) benchmarks.cluster_sim $(ARGS)

bench-kernels: $(STAMPS)/extra-bench $(PACKAGE)  ## the kernels one by one
	$(RUN) pytest benchmarks/bench_kernels.py --benchmark-only $(ARGS)

clean:  ## remove whatever the targets above have made
	rm -rf .venv build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
