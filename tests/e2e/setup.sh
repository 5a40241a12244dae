#!/usr/bin/env bash
# Installs what tests/e2e runs with into TANDEM_CACHE (default ~/.cache/tandem): a Python venv (pytest, the openai client, and
# Node.js from PyPI, for openai's npm package wants a newer one than Debian 12 has) and the openai npm package. Every version
# is exact. A second run with the same versions returns at once.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"

cache=${TANDEM_CACHE:-$HOME/.cache/tandem}
venv=$cache/venv
node=$cache/node
wanted=$(cat requirements.txt package.json | sha256sum | cut -c1-64)
stamp=$venv/tandem-e2e.stamp

[ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && exit 0

mkdir -p "$cache"
echo "==> installing the clients of tests/e2e into $cache" >&2
rm -rf "$venv" "$node"   # versions that are not wanted any more must not stay behind
/usr/bin/python3 -m venv "$venv"
"$venv/bin/pip" -q install --disable-pip-version-check --no-deps -r requirements.txt
"$venv/bin/pip" -q check --disable-pip-version-check
mkdir -p "$node"
cp package.json "$node/"
# No lock file: it would name a registry. openai has no dependencies of its own.
(cd "$node" && PATH="$venv/bin:$PATH" npm install --silent --no-audit --no-fund --no-package-lock --omit=peer --omit=optional)
[ -f "$node/node_modules/openai/package.json" ] || { echo "setup.sh: $node holds no openai package" >&2; exit 1; }
echo "$wanted" >"$stamp"
