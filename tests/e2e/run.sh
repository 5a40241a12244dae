#!/usr/bin/env bash
# Runs tests of tests/e2e with the Python that setup.sh installed: run.sh [pytest's arguments].
set -euo pipefail
cache=${TANDEM_CACHE:-$HOME/.cache/tandem}
python=${TANDEM_PYTHON:-$cache/venv/bin/python}
[ -x "$python" ] || { echo "no $python: run tests/e2e/setup.sh" >&2; exit 1; }
cd "$(dirname "$(readlink -f "$0")")"
exec "$python" -m pytest -p no:cacheprovider -q --tb=short -ra "$@"
