#!/usr/bin/env python3
"""oci_image.py OUT.tar NAME:TAG --layer FOLDER [--layer FOLDER]... : an OCI image archive of folders, one layer each.

No daemon and no registry. The same folders give the same bytes: entries are sorted, belong to root, and carry the time 0.
containerd (`ctr images import`), skopeo and buildah (`oci-archive:OUT.tar`) read it.
"""
import argparse
import hashlib
import io
import json
import os
import pathlib
import tarfile

EPOCH = "1970-01-01T00:00:00Z"
MEDIA = "application/vnd.oci.image"


def entries(folder):
    for parent, folders, files in os.walk(folder):
        folders.sort()
        yield from (pathlib.Path(parent) / name for name in sorted(folders + files))


def layer_of(folder):
    """The folder as an uncompressed tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in entries(folder):
            entry = tar.gettarinfo(path, path.relative_to(folder).as_posix())
            entry.mtime = entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            if path.is_symlink() or not path.is_file():
                tar.addfile(entry)
                continue
            entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", path.stat().st_size  # hard links are files here
            with path.open("rb") as file:
                tar.addfile(entry, file)
    return buffer.getvalue()


def as_json(value):
    return json.dumps(value, sort_keys=True).encode()


class Archive:
    """An OCI image layout in a tar file."""

    def __init__(self, path):
        self._tar = tarfile.open(path, "w")
        self._digests = set()

    def add(self, name, data):
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        self._tar.addfile(entry, io.BytesIO(data))

    def add_blob(self, media_type, data):
        """Its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._digests:
            self.add(f"blobs/sha256/{digest}", data)
            self._digests.add(digest)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def close(self):
        self._tar.close()


def write_image(arguments):
    archive = Archive(arguments.out)
    layers = [archive.add_blob(f"{MEDIA}.layer.v1.tar", layer_of(folder)) for folder in arguments.layer]
    config = archive.add_blob(f"{MEDIA}.config.v1+json", as_json({
        "architecture": "amd64", "os": "linux", "created": EPOCH,
        "config": {"User": arguments.user, "Env": ["PATH=/usr/bin", *arguments.env], "WorkingDir": "/",
                   "Labels": dict(label.split("=", 1) for label in arguments.label),
                   **({"Entrypoint": arguments.entrypoint.split(",")} if arguments.entrypoint else {})},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        "history": [{"created": EPOCH, "created_by": "deploy/images"} for _ in layers]}))
    manifest = archive.add_blob(f"{MEDIA}.manifest.v1+json", as_json({
        "schemaVersion": 2, "mediaType": f"{MEDIA}.manifest.v1+json", "config": config, "layers": layers}))
    tag = arguments.name.rsplit(":", 1)[1]
    manifest["annotations"] = {"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": arguments.name}
    archive.add("index.json", as_json({"schemaVersion": 2, "mediaType": f"{MEDIA}.index.v1+json", "manifests": [manifest]}))
    archive.add("oci-layout", as_json({"imageLayoutVersion": "1.0.0"}))
    archive.close()
    size = sum(layer["size"] for layer in layers)
    print(f"{arguments.out}: {arguments.name}, {size / 1e6:.1f} MB in {len(layers)} layers, {manifest['digest']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("name", help="as containerd will know it: HOST/NAME:TAG")
    parser.add_argument("--layer", action="append", required=True, type=pathlib.Path)
    parser.add_argument("--entrypoint", help="words, joined by commas")
    parser.add_argument("--user", default="65532:65532")
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--label", action="append", default=[])
    write_image(parser.parse_args())


if __name__ == "__main__":
    main()
