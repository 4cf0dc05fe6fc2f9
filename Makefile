# Two doors: `make run` brings the platform up on this machine, `make test` checks everything.
SHELL := /bin/bash
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/chutes-validator
ifdef CI
export CARGO_TARGET_DIR ?= $(CACHE)/target
endif
export CHUTES_CACHE := $(CACHE)
# Programs refuse to work with executables of another state of the tree.
export CHUTES_BUILD_ID := $(shell .ci/build-id)

TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help run stop test prove queries packages tools

help: ## Say what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## Bring the platform up in .local and print what to try (ARGS=--detach to return at once)
	@.ci/packages
	@cargo build --quiet --bins
	@exec $(TARGET)/debug/local run $(ARGS)

stop: ## Stop a platform that runs detached
	@exec $(TARGET)/debug/local stop

test: ## Check format, lints, docs, licences, dependencies and run all tests
	@.ci/packages
	@.ci/tools
	@.ci/test

prove: ## Run long evidence: make prove NAME
	@.ci/packages
	@.ci/prove $(filter-out prove,$(MAKECMDGOALS))

queries: ## Renew control/.sqlx after a change of SQL
	@.ci/packages
	@control/prepare-queries

ifneq ($(filter prove,$(MAKECMDGOALS)),)
%:
	@:
endif
