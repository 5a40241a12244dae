#!/usr/bin/env bash
# The protos against the last released ones: no field, enum value, message or call may go, or get another name, number or type.
#   tests/conformance/protos.sh [FOLDER]    checks FOLDER (default: proto); exit 100 and a line a finding when something broke
#   tests/conformance/protos.sh --release   makes today's protos the released ones (proto/released.binpb), if nothing broke
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
buf=${TANDEM_BUF:-${TANDEM_CACHE:-$HOME/.cache/tandem}/venv/bin/buf}
[ -x "$buf" ] || { echo "no $buf: run tests/e2e/setup.sh" >&2; exit 1; }
release=
[ "${1:-}" != --release ] || { release=1; shift; }
folder=${1:-proto}
[ ! -f proto/released.binpb ] || "$buf" breaking "$folder" --against proto/released.binpb
[ -z "$release" ] || "$buf" build "$folder" --as-file-descriptor-set --exclude-source-info -o proto/released.binpb
