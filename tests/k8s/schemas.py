#!/usr/bin/env python3
"""schemas.py SWAGGER.json FOLDER: the JSON schemas that kubeconform reads, made of Kubernetes' own OpenAPI document.

The document ships in the module k8s.io/kubernetes, so the schemas are those of the very version that the tests run. One file a
kind, KIND-GROUP-VERSION.json in lower case; each refers to _definitions.json. Strict: a field that Kubernetes does not know is an
error.
"""
import json
import pathlib
import sys

# What the document says too loosely or not at all: these are JSON values of several types.
SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": {"type": "object"},
}
ANY_JSON = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"


def strict(schema):
    """The schema without prose and extensions, closed against unknown fields, and with null where a field may be left out."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string":
        return SCALARS["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]
    result = {key: strict(value) for key, value in schema.items()
              if key not in ("description", "properties") and not key.startswith("x-kubernetes-")}
    if "$ref" in result:
        result["$ref"] = result["$ref"].replace("#/definitions/", "_definitions.json#/definitions/")
    if isinstance(schema.get("properties"), dict):
        required = set(schema.get("required", ()))
        result["properties"] = {name: optional(strict(field)) if name not in required else strict(field)
                                for name, field in schema["properties"].items()}
        result.setdefault("additionalProperties", False)
    return result


def optional(field):
    if isinstance(field, dict) and isinstance(field.get("type"), str):
        return field | {"type": [field["type"], "null"]}
    return field


def document(definition, kind):
    """A definition as the schema of a whole manifest of `kind` (group, version, kind)."""
    api_version = f"{kind['group']}/{kind['version']}" if kind["group"] else kind["version"]
    properties = definition["properties"] | {"kind": {"const": kind["kind"]}, "apiVersion": {"const": api_version}}
    return definition | {"$schema": "http://json-schema.org/draft-07/schema#", "properties": properties,
                         "required": sorted({*definition.get("required", ()), "kind", "apiVersion"})}


def main(swagger, folder):
    source = json.loads(pathlib.Path(swagger).read_text())["definitions"]
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    definitions = {name: strict(definition) for name, definition in source.items()} | SCALARS
    definitions |= {name: {} for name in source if name.startswith(ANY_JSON)}
    (folder / "_definitions.json").write_text(json.dumps({"definitions": definitions}))
    written = 0
    for name, definition in source.items():
        kinds = definition.get("x-kubernetes-group-version-kind", ())
        if len(kinds) != 1 or "kind" not in definition.get("properties", ()):
            continue  # what every group shares, such as DeleteOptions, is no manifest
        kind = kinds[0]
        group = kind["group"].split(".")[0]
        file = "-".join(part for part in (kind["kind"], group, kind["version"]) if part).lower() + ".json"
        (folder / file).write_text(json.dumps(document(definitions[name], kind)))
        written += 1
    assert written > 100, f"{swagger} describes {written} kinds: that is not Kubernetes' own document"
    print(f"{folder}: schemas of {written} kinds")


if __name__ == "__main__":
    main(*sys.argv[1:])
