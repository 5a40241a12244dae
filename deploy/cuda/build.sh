#!/usr/bin/env bash
# Builds tandem-worker with ggml's CUDA devices, by nvcc from PyPI: `./dev cuda`. Hours of CPU; ccache makes it
# resumable. No GPU and no driver is needed, and none is used.
#
#   build.sh [--architectures LIST]     default 90-real;80-virtual: code for H100 and H200, PTX for everything since A100
#   build.sh --all                      code for all of them, A100 to B300 and the workstation chips, in build/cuda-all: hours; ./dev soak
#   build.sh --one FILE.cu              compiles one file of ggml-cuda, to see that the compiler works
#
# At the end: the architectures in the binary are those asked for, and it starts on this machine and says what devices there are.
# What was seen of the default list is written to deploy/cuda/stamp.json.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
. deploy/setup/setup.sh

default='90-real;80-virtual' all='80-real;89-real;90-real;100-real;120a-real' # ggml makes 120a of 120
architectures=$default build=build/cuda one=''
while [ $# -gt 0 ]; do
  case $1 in
    --architectures) architectures=${2:?}; shift 2 ;;
    --all) architectures=$all build=build/cuda-all; shift ;;
    --one) one=${2:?}; shift 2 ;;
    *) fail "cuda: no option '$1'" ;;
  esac
done

# The compiler, in a place of its own.
setup_cuda() {
  local venv=$TANDEM_CACHE/cuda-13.0 name
  if ! "$venv/bin/pip" freeze 2>/dev/null | sort | cmp -s - <(grep == deploy/cuda/requirements.txt | sort); then
    step "fetching nvcc and cuBLAS (840 MB)"
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" -q install -r deploy/cuda/requirements.txt || fail "pip install of deploy/cuda/requirements.txt failed"
  fi
  cuda=$(echo "$venv"/lib/python3*/site-packages/nvidia/cu13)
  [ -x "$cuda/bin/nvcc" ] || fail "$cuda/bin/nvcc is not there"
  # The wheels leave out what the linker looks for.
  [ -e "$cuda/lib64" ] || ln -s lib "$cuda/lib64"
  for name in cudart cublas cublasLt; do
    [ -e "$cuda/lib/lib$name.so" ] || ln -s "lib$name.so.13" "$cuda/lib/lib$name.so"
  done
}

# architectures_of cubin|ptx: those of $listing, "sm_80 sm_90".
architectures_of() { sed -n "s/.*\.\(sm_[0-9a-z]*\)\.$1\$/\1/p" <<<"$listing" | sort -u | xargs; }

# wanted_architectures SUFFIX: of the list asked for, those of "-real" or "-virtual"; a bare number is both.
wanted_architectures() {
  tr ';' '\n' <<<"$architectures" | sed -n "s/^\([0-9a-z]*\)\(-$1\)\?$/sm_\1/p" | sort -u | xargs
}

setup_build
setup_cuda
mkdir -p build
step "configuring $build"
cmake --preset cuda -B "$build" -DCMAKE_CUDA_COMPILER="$cuda/bin/nvcc" -DCUDAToolkit_ROOT="$cuda" \
  -DCMAKE_CUDA_ARCHITECTURES="$architectures" >$build-configure.log 2>&1 ||
  { tail -30 $build-configure.log >&2; fail "configuring failed: $build-configure.log"; }
if [ -n "$one" ]; then
  step "compiling $one"
  object=$(ninja -C "$build" -t targets all | sed -n "s|^\(.*/$one\.o\): .*|\1|p" | head -1)
  [ -n "$object" ] || fail "ggml-cuda has no file '$one'"
  ninja -C "$build" "$object"
  PATH=$cuda/bin:$PATH cuobjdump --list-elf --list-ptx "$build/$object"
  exit
fi

step "building tandem-worker with CUDA (hours of CPU the first time)"
begin=$SECONDS
ninja -C "$build" -j "${TANDEM_JOBS:-$(nproc)}" tandem-worker || fail "the build failed"
took=$((SECONDS - begin))
listing=$(PATH=$cuda/bin:$PATH cuobjdump --list-elf --list-ptx $build/bin/tandem-worker) || fail "cuobjdump cannot read $build/bin/tandem-worker"
elf=$(architectures_of cubin) ptx=$(architectures_of ptx)
[ "$elf" = "$(wanted_architectures real)" ] || fail "the binary has code for '$elf', asked for $(wanted_architectures real)"
[ "$ptx" = "$(wanted_architectures virtual)" ] || fail "the binary has PTX for '$ptx', asked for $(wanted_architectures virtual)"
devices=$($build/bin/tandem-worker --device list 2>$build-start.log) || fail "the binary does not start: $(cat $build-start.log)"
printf '%s\n' "$devices"
said=$(grep -i cuda $build-start.log) || [ -e /dev/nvidia0 ] || fail "the binary says nothing of CUDA, and this machine has no GPU: $(cat $build-start.log)"
printf '%s\n' "$said"
[ "$architectures" = "$default" ] || { step "builds and links for $elf"; exit; }
COMMIT=$(git describe --always --dirty) DATE=$(date -u +%F) ELF=$elf PTX=$ptx SECONDS_TAKEN=$took SAID=$said DEVICES=$devices \
  SIZE=$(stat -c %s $build/bin/tandem-worker) /usr/bin/python3 - >deploy/cuda/stamp.json <<'PY'
import json, os
e = os.environ
print(json.dumps({"commit": e["COMMIT"], "date": e["DATE"], "code_for": e["ELF"].split(), "ptx_for": e["PTX"].split(),
                  "binary_bytes": int(e["SIZE"]), "build_seconds": int(e["SECONDS_TAKEN"]), "run_on_a_gpu": False,
                  "said_at_start": e["SAID"].splitlines(), "devices": e["DEVICES"].splitlines()}, indent=1))
PY
step "deploy/cuda/stamp.json: builds and links; not run on a GPU"
