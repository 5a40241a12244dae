#!/usr/bin/env bash
# build.sh FOLDER: the two images that the cluster needs beside Tandem's own, as OCI archives: `pause`, and a `toolbox` (busybox)
# for the model's download.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
out=$1
archive=../../../deploy/images/oci_image.py
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$out" "$stage/pause" "$stage/toolbox/bin"
cc -Os -static -s -o "$stage/pause/pause" pause.c
/usr/bin/python3 "$archive" "$out/pause.tar" localhost/pause:1 --layer "$stage/pause" --entrypoint /pause
cp /usr/bin/busybox "$stage/toolbox/bin/"   # Debian's busybox-static
for name in sh cut mv rm sha256sum wget; do ln -s busybox "$stage/toolbox/bin/$name"; done
/usr/bin/python3 "$archive" "$out/toolbox.tar" localhost/toolbox:1 --layer "$stage/toolbox" --env PATH=/bin
