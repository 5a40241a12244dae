#!/usr/bin/env bash
# Builds Tandem's container image from a build tree of this machine, without a container daemon. build.sh --help
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
source=$(dirname "$(dirname "$here")")

usage() {
  cat <<'TXT'
usage: deploy/images/build.sh [options]

One image with the four programs, the libraries they are linked to, the catalog, rules and dashboards, and a small model to try it
with. It runs as uid 65532 with a read-only root file system.

  --build-dir DIR   a built tree [build/release; ./dev build --preset release makes it]
  --model FILE      the small model [TANDEM_MODEL, or what ./dev setup fetched]; --without-model leaves it out (90 MB less)
  --name NAME       the image's name, with its host [localhost/tandem]
  --tag TAG         [the version of the built programs]
  --output FILE     where the OCI archive is written [build/images/tandem.tar]
  --rootfs DIR      only lays out the image's files in DIR (what the Dockerfile does)

  --push REGISTRY   pushes it as REGISTRY/tandem:TAG, with skopeo; --insecure speaks plain HTTP to it
  --import          imports it into containerd's namespace k8s.io on this node, with ctr; CONTAINERD_ADDRESS is its socket
TXT
}

fail() { echo "build.sh: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || fail "no $1: install Debian's package $2"; }

programs=(tandem-gateway tandem-router tandem-worker tandemctl)
build=$source/build/release
model=${TANDEM_MODEL:-${TANDEM_CACHE:-$HOME/.cache/tandem}/models/SmolLM2-135M-Instruct.Q4_1.gguf}
name=localhost/tandem tag='' output='' rootfs='' registry='' insecure='' import=''
while [ $# -gt 0 ]; do
  case $1 in
    --build-dir|--model|--name|--tag|--output|--rootfs|--push) [ $# -ge 2 ] || fail "$1 needs a value" ;;
  esac
  case $1 in
    --build-dir) build=$(readlink -m "$2"); shift ;;
    --model) model=$2; shift ;;
    --without-model) model= ;;
    --name) name=$2; shift ;;
    --tag) tag=$2; shift ;;
    --output) output=$2; shift ;;
    --rootfs) rootfs=$2; shift ;;
    --push) registry=${2%/}; shift ;;
    --insecure) insecure=1 ;;
    --import) import=1 ;;
    --help|-h) usage; exit 0 ;;
    *) usage >&2; fail "no option '$1'" ;;
  esac
  shift
done
output=${output:-$source/build/images/tandem.tar}

# lay_out ROOT: the programs, what they are linked to, and what the product installs beside them.
lay_out() {
  local root=$1 program library
  for program in "${programs[@]}"; do
    install -D -m 755 --strip "$build/bin/$program" "$root/usr/bin/$program"
    # The build-id is of the debug information too, and so of the checkout's path.
    strip --remove-section=.note.gnu.build-id "$root/usr/bin/$program"
  done
  # Each library at its own path, the loader among them: the very files that the tests ran with.
  ldd "${programs[@]/#/$build/bin/}" | grep -o '/[^ :]*\.so[^ :]*' | sort -u | while read -r library; do
    install -D -m 755 "$(readlink -f "$library")" "$root/$library"
  done
  cmake --install "$build" --prefix "$root/usr" >/dev/null || fail "$build is no configured build tree"
  mkdir -p "$root/etc" "$root/tmp"
  chmod 1777 "$root/tmp"
  echo 'tandem:x:65532:65532:tandem:/tmp:/usr/sbin/nologin' >"$root/etc/passwd"
  echo 'tandem:x:65532:' >"$root/etc/group"
  echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
  /usr/bin/python3 "$here/sbom.py" "$root" "$build" "$tag" ${model:+"$model"} >"$stage/sbom" || fail "no list of what is in the image"
  install -D -m 644 "$stage/sbom" "$root/usr/share/tandem/sbom.spdx.json"
}

# lay_out_model ROOT: under the name that clients ask for.
lay_out_model() {
  install -D -m 644 "$model" "$1/usr/share/tandem/models/$(basename "$model")"
}

for program in "${programs[@]}"; do
  [ -x "$build/bin/$program" ] || fail "no $build/bin/$program: run ./dev build --preset release, or name another --build-dir"
done
[ -z "$model" ] || [ -r "$model" ] || fail "no model file $model: run ./dev setup, name one with --model, or say --without-model"
[ -n "$tag" ] || tag=$("$build/bin/tandemctl" version | grep -o '[0-9][0-9.]*' | head -1)
[ -n "$tag" ] || fail "tandemctl version names no version"
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
umask 022
if [ -n "$rootfs" ]; then
  lay_out "$rootfs"
  [ -z "$model" ] || lay_out_model "$rootfs"
  exit 0
fi

[ -z "$import" ] || need ctr containerd
[ -z "$registry" ] || need skopeo skopeo
lay_out "$stage/programs"
layers=(--layer "$stage/programs")
if [ -n "$model" ]; then   # a layer of its own: a new build of the programs leaves it as it is
  lay_out_model "$stage/model"
  layers+=(--layer "$stage/model")
fi
mkdir -p "$(dirname "$output")"
/usr/bin/python3 "$here/oci_image.py" "$output" "$name:$tag" "${layers[@]}" --env HOME=/tmp \
  --label org.opencontainers.image.title=tandem --label "org.opencontainers.image.version=$tag" \
  --label org.opencontainers.image.licenses=Apache-2.0 --label tandem.cpu-baseline=x86-64-v3

if [ -n "$import" ]; then
  ctr --namespace k8s.io images import "$output"
fi
if [ -n "$registry" ]; then
  skopeo copy ${insecure:+--dest-tls-verify=false} "oci-archive:$output:$tag" "docker://$registry/tandem:$tag"
  echo "pushed $registry/tandem:$tag"
fi
