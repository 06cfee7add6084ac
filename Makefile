# The front door; the build itself is CMake's (CMakePresets.json).

JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
BIN := build/release/bin

.DEFAULT_GOAL := help
.PHONY: help quickstart build test install bench format lint clean configure everything

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

quickstart: build ## Build, then train and look at an expert model (ARGS="--help")
	@scripts/install-packages data
	$(BIN)/cadre quickstart $(ARGS)

build: configure ## Build the programs into build/release/bin
	cmake --build --preset release --target programs -j $(JOBS)

test: everything ## Build everything and run every test
	@scripts/install-packages test data
	ctest --preset release

install: everything ## Install programs, libraries and headers (PREFIX=/usr/local)
	cmake --install build/release --prefix $(PREFIX)

bench: everything ## Build and run the benchmarks (FILTER=gemm for some)
	@scripts/install-packages bench
	scripts/bench $(FILTER)

format: ## Format the tree with clang-format
	@scripts/install-packages test
	scripts/check-format --fix

lint: configure ## Run clang-tidy over what changed (FILES=all or FILES="a.cpp b.cpp")
	@scripts/install-packages check
	scripts/lint $(FILES)

clean: ## Delete what was built
	rm -rf build

configure:
	@scripts/install-packages build
	cmake --preset release

everything: configure
	cmake --build --preset release -j $(JOBS)
