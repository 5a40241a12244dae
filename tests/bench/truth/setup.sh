#!/usr/bin/env bash
# Installs what fit.py runs with into a venv of its own in TANDEM_CACHE (default ~/.cache/tandem) and prints its Python. Every
# version is exact. A second run with the same versions returns at once.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
venv=${TANDEM_CACHE:-$HOME/.cache/tandem}/truth-venv
wanted=$(sha256sum "$here/requirements.txt" | cut -c1-64)
if [ ! -x "$venv/bin/python" ] || [ "$(cat "$venv/tandem-truth.stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "==> installing scipy into $venv" >&2
  rm -rf "$venv"
  /usr/bin/python3 -m venv "$venv"
  "$venv/bin/pip" -q install --disable-pip-version-check --no-deps -r "$here/requirements.txt" >&2
  "$venv/bin/pip" -q check --disable-pip-version-check >&2
  echo "$wanted" >"$venv/tandem-truth.stamp"
fi
echo "$venv/bin/python"
