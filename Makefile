# Every target sets up what it needs: a virtual environment in .venv with the pinned requirements, the
# generated code, and Debian's packages where they can be installed. `make` alone prints the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Which ZooKeeper: empty for Debian's package (3.8), or 3.9 for the newest of that line, through Maven.
ZOOKEEPER ?=
export ZOOKEEPER

# More arguments for the program behind a target: make test ARGS="tests/hub -k resync", make run ARGS=--memory.
ARGS ?=

PYTHON ?= $(firstword $(shell for name in python3.11 python3.12 python3.13 python3.14 python3; do \
	command -v $$name >/dev/null && $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$name; done))
BIN := .venv/bin
PROTO := $(shell find proto -name '*.proto')
CODE := zkside tests bench docs tools hatch_build.py

help: ## Print the targets.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | while IFS=$$'\t' read -r name text; do \
		printf '  make %-13s %s\n' "$$name" "$$text"; done
	@printf '\n  ZOOKEEPER=3.9  with run, test, faults, interop and bench: the newest 3.9 through Maven, not Debian'"'"'s 3.8\n'
	@printf '  ARGS="..."     more arguments for the program behind run, test, faults and bench\n'

run: setup ## Start a private ZooKeeper and the daemon; prints commands to paste. Ctrl-C ends both.
	@if [[ " $(ARGS) " == *" --memory "* ]] || tools/provide $(SERVER); then \
		exec $(BIN)/zkside dev $(if $(ZOOKEEPER),--zookeeper $(ZOOKEEPER)) $(ARGS); \
	else \
		printf '\nGoing on without ZooKeeper: an in-memory stand-in, for trying out only. All is gone when it stops.\n\n'; \
		exec $(BIN)/zkside dev --memory $(ARGS); \
	fi

test: setup ## Run the tests, against real ZooKeeper. ARGS="-n 4 --dist loadfile": side by side, in half the time.
	@tools/provide $(SERVER) prometheus openssl systemd
	$(BIN)/pytest -q -m "not faults and not interop and not image and not k8s and not page and not prometheus and not release and not clients \
		and not security" $(ARGS)

faults: setup ## Run the long tests under injected faults.
	@tools/provide $(SERVER)
	@tools/provide namespaces || true
	$(BIN)/pytest -q -m faults --timeout 900 $(ARGS)

safety: setup ## Cut leaders off, and measure who still leads: zkside, Curator and kazoo. 35 minutes, as root.
	@tools/provide $(SERVER) jdk maven namespaces
	@$(MAKE) --no-print-directory .zkside/interop/.compiled
	$(BIN)/python -m tests.safety.measure $(ARGS)

soak: setup ## Abuse a daemon for an hour beside a well-behaved client that must not notice. ARGS="--minutes 2": a try.
	@tools/provide $(SERVER)
	$(BIN)/python -m tests.soak $(ARGS)

interop: setup ## Let real Curator and kazoo contend with zkside for the same locks, elections and groups.
	@tools/provide $(SERVER) jdk maven
	@$(MAKE) --no-print-directory .zkside/interop/.compiled
	$(BIN)/pytest -q -m interop $(ARGS) tests/interop

clients: setup ## Make the examples in Go, Java, Node.js and Rust, and let them share a daemon's locks.
	@tools/provide $(SERVER) jdk maven go node rust protoc
	$(BIN)/pytest -q -m clients $(ARGS) tests/clients

k8s: setup ## Render the Kubernetes manifests; check them, their alerts and their dashboard.
	@tools/provide $(SERVER) kustomize prometheus
	$(BIN)/pytest -q -m k8s $(ARGS) tests/k8s

image: setup ## Build the image without Docker, and run it: read-only, bounded, against ZooKeeper. As root.
	@tools/provide $(SERVER) containers compose prometheus
	tools/image
	$(BIN)/pytest -q -m image $(ARGS) tests/image

prometheus: setup ## Let a real Prometheus scrape; cause what each alert is for, see it fire and clear. 11 minutes.
	@tools/provide $(SERVER) prometheus
	$(BIN)/pytest -q -m prometheus $(ARGS) tests/prometheus

security: setup ## Prove the threat model: every identity on every RPC and path, TLS, tokens, chroots, audit. 3 minutes.
	@tools/provide $(SERVER) openssl
	$(BIN)/pytest -q $(ARGS) tests/security tests/core/test_policy.py tests/cli/test_policy.py tests/rpc/test_server.py \
		tests/rpc/test_bad_input.py tests/session/test_journal.py tests/zk/test_security.py tests/ops/test_http.py

page: setup ## Look at the status page in headless Chromium, in all its states; writes the pictures of the docs.
	@tools/provide $(SERVER) chromium
	@mkdir -p docs/images
	SCREENSHOTS=docs/images $(BIN)/pytest -q -m page $(ARGS) tests/page

check: setup ## Lint, types, floors, protos, generated docs: all that is judged without running.
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy zkside tests bench tools
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	@PATH=$(CURDIR)/$(BIN):$$PATH tools/breaking
	$(BIN)/python docs/generate.py --check

fmt: setup ## Format the code and the protos, and write the generated docs.
	$(BIN)/ruff check --fix-only -q $(CODE)
	$(BIN)/ruff format $(CODE)
	$(BIN)/buf format -w
	$(BIN)/python docs/generate.py

proto: .venv/.requirements ## Generate zkside/pb from proto/.
	$(BIN)/python hatch_build.py

bench: setup ## Measure against what a user would do instead: a table, JSON and a plot.
	@tools/provide $(SERVER) jdk maven
	@$(MAKE) --no-print-directory .zkside/interop/.compiled
	$(BIN)/python -m bench $(ARGS)

dist: setup ## Build the wheel, the sdist and the bill of materials into dist/.
	@$(BIN)/python -m tools.dist $(ARGS)

release-check: setup ## Install what `make dist` builds into empty environments and run it; upgrade from older commits.
	@tools/provide $(SERVER)
	$(BIN)/pytest -q -m release $(ARGS) tests/release

release: setup ## Make a release here, VERSION=x.y.z: checks, version, builds, commit, tag. docs/releasing.md
	@$(BIN)/python -m tools.release "$(VERSION)" --check 'make check' --check 'make test' --check 'make release-check' $(ARGS)

baseline: .venv/.requirements ## Before the first release: take the present protos as what `make check` compares with.
	@PATH=$(CURDIR)/$(BIN):$$PATH tools/breaking
	$(BIN)/buf build --exclude-source-info -o proto/baseline.binpb

lock: ## Pin the requirements anew, with hashes, from the ranges in pyproject.toml.
	@test -x .zkside/lock/bin/pip-compile || { $(PYTHON) -m venv .zkside/lock && .zkside/lock/bin/pip install -q pip-tools; }
	.zkside/lock/bin/pip-compile $(LOCK) -o requirements/run.txt pyproject.toml
	.zkside/lock/bin/pip-compile $(LOCK) -c requirements/run.txt --extra dev -o requirements/dev.txt pyproject.toml
	.zkside/lock/bin/pip-compile $(LOCK) -c requirements/dev.txt --only-build-deps --build-deps-for wheel \
		-o requirements/build.txt pyproject.toml

clean: ## Remove the virtual environment and all that was generated.
	@[ ! -e .zkside/image/store ] || tools/image remove
	rm -rf .venv .zkside dist zkside/pb .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

setup: .venv/.project zkside/pb/__init__.py

SERVER = $(if $(filter-out 3.8,$(ZOOKEEPER)),maven,zookeeper)
LOCK = --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer is missing. As root: apt-get install python3 python3-venv' >&2; exit 1; }
	@PYTHON=$(PYTHON) tools/provide venv
	$(PYTHON) -m venv .venv

.venv/.requirements: .venv/bin/python requirements/dev.txt
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

.venv/.project: .venv/.requirements pyproject.toml hatch_build.py
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

zkside/pb/__init__.py: $(PROTO) hatch_build.py .venv/.requirements
	$(BIN)/python hatch_build.py

.zkside/interop/.compiled: tests/interop/java/pom.xml $(shell find tests/interop/java/src -type f)
	@rm -rf $(@D)
	@mvn -q -B -f $< compiler:compile dependency:copy-dependencies || { echo 'Maven could not get Curator, or not compile' \
		'tests/interop/java: see above. It needs Maven Central, or a mirror named in ~/.m2/settings.xml.' >&2; exit 1; }
	@touch $@

.PHONY: help run clients test faults safety soak interop k8s image page security prometheus check fmt proto bench dist release release-check baseline lock clean setup
