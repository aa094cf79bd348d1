.DEFAULT_GOAL := help
.PHONY: help run test test-cache fuzz soak bench bench-llm fmt lint docs accounting package test-package image test-image

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## A gateway with simulated upstreams, and calls to try
	cargo run -q -- demo

test: ## All tests; installs what they need
	scripts/test-setup.sh
	@if cargo nextest --version >/dev/null 2>&1; then set -x; cargo nextest run --workspace; \
	else set -x; cargo test --workspace; fi

test-cache: ## The cache beside Squid and Varnish, by a suite that is not ours; installs what it needs
	scripts/cache-tests.sh

fuzz: ## Every fuzz target for ten seconds
	scripts/fuzz.sh

soak: ## Ten minutes of traffic of every kind, with faults; SOAK=60s for one
	cargo test --release -p weir --test soak

accounting: ## 20,000 calls at random, every token of them accounted for; a budget of four nodes, its store killed twice
	WEIR_ACCOUNTING_CALLS=20000 cargo test -p weir --test it accounting -- --nocapture
	WEIR_BUDGET_DOLLARS=200 cargo test -p weir --test it leases -- --nocapture --test-threads 1

bench: ## Side by side with other gateways; writes bench/RESULTS.md
	bench/setup.sh
	cargo build --release -p weir -p bench
	target/release/bench run --weir target/release/weir --readme README.md

bench-llm: ## Side by side with other gateways for models; writes bench/RESULTS-LLM.md
	bench/setup-llm.sh
	cargo build --release -p weir -p bench
	target/release/bench llm --weir target/release/weir --readme README.md

bench-overload: ## More calls than an upstream bears, with and without admit; writes bench/RESULTS-overload.md
	cargo build --release -p weir -p bench
	target/release/bench overload

package: ## The Debian package, in target/package
	scripts/package.sh

test-package: package ## Installs it into a bare system, runs, upgrades, removes and purges it; for root
	scripts/package-test.sh

image: ## A container image, by podman, docker or buildah; asks no registry
	scripts/image.sh

test-image: ## Builds it by buildah and runs what is in it; for root
	scripts/image-test.sh

fmt: ## Formats the code
	cargo fmt --all

lint: ## What the compiler and clippy have to say
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

docs: ## docs/reference.md and docs/schema.json anew
	scripts/docs.sh
