# Thin on purpose: the work is in setup/setup.sh, in cargo and in the program itself.
.PHONY: setup build demo test lint docs bench clean

setup:
	@setup/setup.sh

build: setup
	cargo build --release --locked

demo: build
	target/release/icecap demo

lint: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

docs: setup
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items

test: lint
	cargo test --workspace --locked
	$(MAKE) docs

bench: build
	EXTRAS=bench setup/setup.sh
	benches/run.sh

clean:
	cargo clean
	rm -rf .venv .dev
