#!/usr/bin/env python3
"""sbom.py ROOT BUILD_DIR VERSION [MODEL]: what an image is made of, as SPDX 2.3 (JSON), to standard output. ROOT is its file system, MODEL
the model file that comes beside it.

Packages: Tandem; every Debian package that a library in it comes from, or whose headers its programs were compiled with (from ninja's own
record of the build); every PyPI package that a library comes from (CUDA's); llama.cpp and the model, as deploy/setup/setup.sh pins them. Says
the same of the same files: no time, no random name.
"""
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys

SETUP = pathlib.Path(__file__).resolve().parents[1] / "setup" / "setup.sh"
PROGRAMS = ["tandem-gateway", "tandem-router", "tandem-worker", "tandemctl"]


def run(*argv):
    return subprocess.run([*map(str, argv)], capture_output=True, text=True).stdout


def pinned():
    """Variables of setup.sh."""
    return dict(re.findall(r"^(\w+)=([^\s$]+)", SETUP.read_text(), re.M))


def headers(build):
    """Files outside of the source tree that the programs' objects were compiled from."""
    objects = {line for program in PROGRAMS for line in run("ninja", "-C", build, "-t", "inputs", f"bin/{program}").splitlines() if line.endswith(".o")}
    return {line.strip() for block in run("ninja", "-C", build, "-t", "deps", *sorted(objects)).split("\n\n") for line in block.splitlines()[1:]
            if line.strip().startswith("/usr/")}


def debian(paths):
    """Path to the Debian package that it is of, at its installed version; a path of no package is left out."""
    owners = {}
    paths = {os.path.realpath(path) for path in paths}
    # /lib is a link to /usr/lib; a package may know its file by either name.
    for line in run("dpkg-query", "--search", *sorted(paths | {path.removeprefix("/usr") for path in paths})).splitlines():
        package, _, path = line.partition(": ")
        owners[os.path.realpath(path)] = package.split(", ")[0]
    known = sorted(set(owners.values()))
    versions = dict(line.split("\t") for line in run("dpkg-query", "--show", "--showformat=${binary:Package}\t${Version}\n", *known).splitlines())
    return {path: (package.partition(":")[0], versions.get(package) or versions[f"{package}:amd64"]) for path, package in owners.items()}


def pypi(paths):
    """Path to the PyPI package that installed it into its site-packages, and its version; a path of none is left out."""
    sites = {match[1] for match in (re.match("(.*/site-packages)/", path) for path in paths) if match}
    files = {os.path.realpath(found.locate_file(file)): (found.metadata["Name"], found.version)
             for found in importlib.metadata.distributions(path=sorted(sites)) for file in found.files or ()}
    return {path: files[path] for path in map(os.path.realpath, paths) if path in files}


def spdx_id(name):
    return "SPDXRef-" + re.sub(r"[^a-zA-Z0-9.-]", "-", name)


def package(name, version, license="NOASSERTION", purl=None, sha256=None, **more):
    entry = {"SPDXID": spdx_id(name), "name": name, "versionInfo": version, "licenseDeclared": license,
             "licenseConcluded": license, "downloadLocation": "NOASSERTION", "copyrightText": "NOASSERTION", "filesAnalyzed": False, **more}
    if purl:
        entry["externalRefs"] = [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}]
    if sha256:
        entry["checksums"] = [{"algorithm": "SHA256", "checksumValue": sha256}]
    return entry


def model_package(file, pins):
    found = hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest()
    if found != pins["MODEL_SHA256"]:
        return package(pathlib.Path(file).name, "NOASSERTION", sha256=found)
    name, _, version = pins["MODEL_PACKAGE"].partition("==")
    return package(name, version, license="Apache-2.0", purl=f"pkg:pypi/{name}@{version}", sha256=found)


def main(root, build, version, model=None):
    root, pins = pathlib.Path(root), pinned()
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    libraries = {f"/{path.relative_to(root)}" for path in files if ".so" in path.name}
    owners = debian(libraries)
    wheels = pypi(libraries)
    unknown = {os.path.realpath(path) for path in libraries} - set(owners) - set(wheels)
    if unknown:
        sys.exit(f"sbom.py: of no Debian and no PyPI package: {', '.join(sorted(unknown))}")
    linked = set(owners.values())
    compiled = set(debian(headers(build)).values()) - linked
    llama, _, llama_version = pins["LLAMA_PACKAGE"].partition("==")
    tandem = package("tandem", version, license="Apache-2.0")
    others = [package(name, found, purl=f"pkg:deb/debian/{name}@{found}?arch=amd64&distro=debian-12") for name, found in sorted(linked | compiled)]
    others += [package(name, found, purl=f"pkg:pypi/{name}@{found}") for name, found in sorted(set(wheels.values()))]
    others.append(package(llama, llama_version, license="MIT", purl=f"pkg:pypi/{llama}@{llama_version}", sha256=pins["LLAMA_SHA256"],
                          comment="its vendored llama.cpp and ggml are linked into the programs"))
    others += [model_package(model, pins)] if model else []
    contents = hashlib.sha256("".join(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in files).encode()).hexdigest()
    built = {spdx_id(name) for name, _ in compiled}
    json.dump({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"tandem-{version}",
        "documentNamespace": f"urn:tandem:image:{contents}", "creationInfo": {"created": "1970-01-01T00:00:00Z", "creators": ["Tool: deploy/images/sbom.py"]},
        "packages": [tandem, *others],
        "relationships": [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": tandem["SPDXID"]}] + [
            {"spdxElementId": entry["SPDXID"], "relationshipType": "BUILD_DEPENDENCY_OF", "relatedSpdxElement": tandem["SPDXID"]}
            if entry["SPDXID"] in built else
            {"spdxElementId": tandem["SPDXID"], "relationshipType": "DEPENDS_ON", "relatedSpdxElement": entry["SPDXID"]} for entry in others]},
        sys.stdout, indent=1, sort_keys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
