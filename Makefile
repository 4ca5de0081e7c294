# `make demo` shows the main job; `make test` is all that CI runs.
.PHONY: help test demo fmt lint doc arrows unit tools

help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

tools: ## install what the other targets need
	@command -v cc >/dev/null || { apt-get update -q && apt-get install -qy build-essential; }

test: tools fmt lint arrows doc unit ## everything that CI checks

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked -q

arrows: ## dependencies point one way (ARCHITECTURE.md)
	python3 scripts/arrows.py

unit:
	cargo test --workspace --locked
