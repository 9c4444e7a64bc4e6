# `make demo` and `make test` need nothing but Python >= 3.10, pip and make (GNU make >= 3.81).
# Each makes .venv on its first call; later calls skip that until pyproject.toml or constraints.txt changes.

PYTHON ?= python3
ARGS ?=
# A process a core, each of which takes whole files of tests. `make PARALLEL= test` runs them in one.
PARALLEL ?= -n auto --maxprocesses 8 --dist loadfile
export PYTHON

.PHONY: help demo test test-all lint clean

help:
	@echo 'make demo      correct the embedded scans with the released weights; ends with a table and a picture'
	@echo 'make test      the tests                              make test ARGS="-k psf" hands arguments to pytest'
	@echo 'make test-all  the tests and the proofs that take minutes'
	@echo 'make lint      ruff and mypy'
	@echo 'make clean     remove .venv, caches and the output of the demo; data sets and trained weights stay'
	@echo
	@echo 'make PYTHON=python3.12 test                                                another Python'
	@echo 'make PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu test         on Linux: torch without CUDA, gigabytes less'

demo: .venv/.with-test
	.venv/bin/ctrestore demo $(ARGS)

test: .venv/.with-test
	.venv/bin/python -m pytest $(PARALLEL) $(ARGS)

test-all: .venv/.with-test
	.venv/bin/python -m pytest $(PARALLEL) -m "" $(ARGS)

lint: .venv/.with-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# .venv/.with-EXTRA is empty; its date says when that extra of pyproject.toml was installed.
.venv/.with-%: pyproject.toml constraints.txt
	@EXTRA=$* sh -euc "$$INSTALL"
	@touch $@

# uv is used where it is on the PATH: it is several times faster. It reads none of pip's settings, so it is told
# where pip would look (a folder of wheels, an index of one's own) and to choose among those places as pip does.
define INSTALL
if ! "$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "make: '$$PYTHON' is missing or older than Python 3.10. Name another one, for example: make PYTHON=python3.12 test" >&2
    exit 1
fi

if command -v uv >/dev/null; then installer=uv inside=sys; else installer=pip inside=pip; fi
if ! .venv/bin/python -c "import $$inside" 2>/dev/null; then
    rm -rf .venv
    if [ $$installer = uv ]; then
        uv venv --quiet --python "$$("$$PYTHON" -c 'import sys; print(sys.executable)')" .venv
    elif ! "$$PYTHON" -m venv .venv; then
        rm -rf .venv
        echo "make: '$$PYTHON -m venv' failed. Usual cause: the system's Python comes without it." >&2
        echo "Remedy: install it (Debian, Ubuntu: apt install python3-venv), or uv (pip install uv), and call make again." >&2
        exit 1
    fi
fi

echo "Installing into .venv with $$installer (once; about 1 GB, with CUDA about 5 GB)" >&2
if [ $$installer = pip ]; then
    exec .venv/bin/python -m pip install -c constraints.txt -e ".[$$EXTRA]"
fi

pip_setting() {  # every value that pip's files and environment give one option
    "$$PYTHON" -m pip config list 2>/dev/null | sed -n "s/^[^=]*[.]$$1='\(.*\)'\$$/\1/p" | sed 's/\\n/ /g'
}
set --
for place in $$(pip_setting find-links) $${PIP_FIND_LINKS:-}; do
    case $$place in *://*) ;; *) [ -e "$$place" ] || continue ;; esac  # pip skips a missing folder, uv stops at it
    set -- "$$@" --find-links "$$place"
done
for index in $$(pip_setting extra-index-url) $${PIP_EXTRA_INDEX_URL:-}; do
    set -- "$$@" --extra-index-url "$$index"
done
index=$${PIP_INDEX_URL:-$$(pip_setting index-url | tail -n 1)}
if [ -n "$$index" ]; then set -- "$$@" --default-index "$$index"; fi
exec uv pip install --python .venv/bin/python --index-strategy unsafe-best-match "$$@" -c constraints.txt -e ".[$$EXTRA]"
endef
export INSTALL
