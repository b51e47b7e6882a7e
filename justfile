# The commands of this project by name: `just --list` shows them, `just clippy` runs one.
# `.ci/run` runs those of "checks" and "servers", each with a time limit, and says what failed.

set shell := ["bash", "-euo", "pipefail", "-c"]

_list:
    @just --list --unsorted

# Everything that must pass before a change is merged, on a bare machine too
[group('checks')]
ci:
    .ci/run

# Download the dependencies
[group('checks')]
fetch:
    cargo fetch --locked

# Check the formatting
[group('checks')]
fmt:
    cargo fmt --all --check

# Check the shell scripts with shellcheck
[group('checks')]
shell:
    shellcheck --exclude=SC1091 .ci/run scripts/*

# Lint all code, warnings are errors
[group('checks')]
clippy:
    cargo clippy --locked --workspace --all-targets -- -D warnings

# Lint and test podlog as it is shipped: without the laboratory (the demo and the simulation)
[group('checks')]
without-lab:
    cargo clippy --locked --no-default-features --lib --bins -- -D warnings
    cargo test --locked --no-default-features --lib -- command:: cli::

# Compile the tests that are run by hand: the deliberate defects and the faults of processes and databases
[group('checks')]
compile-long:
    cargo check --locked --features defects --test defects
    cargo check --locked --test faults

# Run all tests that need no server
[group('checks')]
test:
    cargo test --locked --workspace

# Build the documentation of the code, warnings are errors
[group('checks')]
doc:
    RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps

# Check licences, sources and forbidden dependencies (needs cargo-deny)
[group('checks')]
deny:
    cargo-deny check bans licenses sources

# Check for known vulnerabilities (needs cargo-deny and the network)
[group('checks')]
advisories:
    cargo-deny check advisories

# Build the optimised binary, with the demo and the simulation
[group('checks')]
release:
    cargo build --locked --release

# Play random histories of failing replicas
[group('checks')]
simulate seeds='1000': release
    target/release/podlog simulate --seeds {{ seeds }}

# Collect a simulated cluster with three replicas, kill one, and audit the result
[group('checks')]
demo: release
    target/release/podlog demo

# Check that the demo without claims finds duplicates
[group('checks')]
demo-without-claims: release
    scripts/demo-without-claims

# Build the binary as it is shipped, without the laboratory, as target/shipped/podlog
[group('checks')]
shipped:
    cargo build --locked --release --no-default-features --bin podlog
    install -D target/release/podlog target/shipped/podlog

# Tests on the servers that PODLOG_TEST_MYSQL, PODLOG_TEST_MARIADB and KUBECONFIG name
[group('servers')]
servers:
    PODLOG_TEST_REQUIRE_ALL=1 cargo test --locked --test it

# Check that the manifests are what the chart renders (needs helm)
[group('servers')]
manifests:
    scripts/manifests --check

# The suite on the cluster that KUBECONFIG names, without the installation
[group('servers')]
e2e:
    cargo test --locked --test e2e -- --nocapture --skip install::

# Rotation of logs on a real cluster: 60,000 lines at once
[group('servers')]
rotation:
    cargo test --locked --test e2e -- --nocapture --ignored rotation::

# Install the chart of the image PODLOG_TEST_PODLOG_IMAGE and restart the database under it
[group('servers')]
install:
    cargo test --locked --test e2e -- --nocapture install::

# Stop the API server and the kubelet for a while, which affects every user of the cluster
[group('long')]
servers-away:
    cargo test --locked --test e2e -- --nocapture --ignored --test-threads 1 servers_away::

# The end-to-end suite on a cluster made by kind (needs docker, kind, kubectl and helm)
[group('long')]
kind:
    scripts/kind-e2e

# Kill and freeze replicas and databases: 5 to 7 minutes, on a machine without other work
[group('long')]
faults:
    cargo test --locked --test faults -- --nocapture

# Show that the simulation finds each deliberate defect: 2 minutes
[group('long')]
defects:
    cargo test --locked --release --features defects --test defects -- --nocapture

# Run the demo under random failures for a long time
[group('long')]
soak duration='30m': release
    target/release/podlog demo --soak {{ duration }} --chaos

# Fuzz one target of fuzz/ (needs nightly and cargo-fuzz)
[group('long')]
fuzz target runs='1000000':
    cargo +nightly fuzz run -s none {{ target }} -- -max_len=512 -runs={{ runs }}

# The largest worlds of the model checker: 15 minutes and 6 GB
[group('long')]
model-long:
    cargo test --locked --release --test model -- --ignored --nocapture

# Measure decisions per second, CPU per line and memory per stream
[group('long')]
bench:
    cargo bench --locked --bench domain
    cargo bench --locked --bench collector

# Write the generated tables of the documents
[group('tools')]
tables:
    PODLOG_TEST_WRITE_TABLES=1 cargo test --locked --test it -- tidy:: chart::

# Build the image
[group('tools')]
image name='podlog:dev':
    docker build --tag {{ name }} .
