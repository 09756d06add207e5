#!/bin/sh
# Installs what the foreign clients need, in the locked versions, into a folder, and builds the one on tonic there:
#
#     tests/foreign/setup.sh target/foreign
#
# That folder is where tests/foreign_clients.rs looks (beside debug/ and release/, so under
# CARGO_TARGET_DIR if that is set); for another one, set TOUCHDOWN_PYTHON to its venv/bin/python and
# TOUCHDOWN_NODE_MODULES to its node_modules. Needs python3 with venv, node and npm, and Rust 1.88 for tonic.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:?usage: $0 FOLDER}"
# npm does not install into a folder that is a symbolic link.
folder=$(cd "$1" && pwd -P)

python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"

cp "$here/package.json" "$here/package-lock.json" "$folder/"
npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel error

"${CARGO:-cargo}" build --quiet --locked --manifest-path "$here/tonic/Cargo.toml" --target-dir "$folder/tonic"
