.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup up test coverage e2e-smoke e2e e2e-pods tools check fmt lock upgrade docs bench images audit mutants hooks clean
RUN := .venv/bin/python

##@ Start here
help: ## Show this list
	@scripts/python scripts/targets.py
setup: ## Make the environment in .venv (every other target does this first, too)
	@scripts/python scripts/environment.py
up: setup ## Run the whole platform here; ARGS="--port 0 --fresh" are options of `jangada up`
	@.venv/bin/jangada up $(ARGS)

##@ While you work
test: setup ## Run the tests; ARGS="-k import" runs some
	@$(RUN) scripts/suite.py $(ARGS)
coverage: setup ## Run the tests that reach packages/ and hold their branches at 90 %
	@$(RUN) scripts/suite.py --branches
e2e-smoke: setup ## Run the shorter tests on a Kubernetes control plane, which is built the first time
	@$(RUN) scripts/suite.py --cluster smoke
e2e: setup ## Run all tests on a Kubernetes control plane; ARGS="-k grace" runs some
	@$(RUN) scripts/suite.py --cluster all $(ARGS)
e2e-pods: setup ## Run the tests on a real node, whose pods are containers; it takes root
	@$(RUN) scripts/suite.py --pods $(ARGS)
check: setup ## Check format, lint, types, imports, conventions, generated files and locks
	@$(RUN) scripts/checks.py
fmt: setup ## Format the code and mend what ruff can mend
	@$(RUN) scripts/checks.py --mend
docs: setup ## Write the generated documents anew
	@$(RUN) scripts/documents.py
hooks: setup ## Let git run the quick checks before each commit
	@.venv/bin/pre-commit install

##@ Dependencies
lock: ## Write the locks after a change of a pyproject.toml
	@scripts/python scripts/locks.py
upgrade: ## Write the locks with the newest versions that are allowed
	@scripts/python scripts/locks.py --upgrade

##@ Now and then
bench: setup ## Measure what docs/performance.md promises; fails when a ratio isn't held
	@$(RUN) bench/run.py $(ARGS)
tools: setup ## Build what tests of the cluster run, out of tools/; ARGS=keda builds another set
	@$(RUN) scripts/tools.py $(ARGS)
images: setup ## Build the services' images and look into them; ARGS="api --local-base" are options
	@$(RUN) scripts/suite.py --images $(ARGS)
audit: setup ## Look for known vulnerabilities in what is shipped; it asks PyPI
	@$(RUN) scripts/audit.py
mutants: setup ## Change the code on purpose and see whether a test notices (about 20 minutes)
	@$(RUN) scripts/mutants.py $(ARGS)
clean: ## Remove environments and caches; the data of `jangada up` stays
	@scripts/python scripts/clean.py
