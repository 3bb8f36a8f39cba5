"""Validates Kubernetes objects against the schemas of Kubernetes, KEDA and the Prometheus operator.

A program for the Python of ``.kube/venv``, which has the schemas; see ``.ci/run``. It reads a JSON list of objects from
stdin, takes the versions of Kubernetes as arguments, and prints a line for each problem.
"""

import functools
import json
import sys
from collections.abc import Iterator
from typing import Any

from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus_operator
from kubernetes_validate import utils

MODELS = {"keda.sh/v1alpha1": keda, "monitoring.coreos.com/v1": prometheus_operator}
"""Models that were generated from the CRDs of KEDA 2.16 and Prometheus operator 0.80."""


def find_unknown(given: Any, known: Any, path: str) -> Iterator[str]:
    """Yield the fields of an object that its model does not have. Models ignore them, so they are missing in a dump."""
    if isinstance(given, dict) and isinstance(known, dict):
        for name, value in given.items():
            if name in known:
                yield from find_unknown(value, known[name], f"{path}.{name}")
            else:
                yield f"unknown field {path}.{name}"
    elif isinstance(given, list) and isinstance(known, list):
        for index, (item, known_item) in enumerate(zip(given, known, strict=True)):
            yield from find_unknown(item, known_item, f"{path}[{index}]")


def find_problems(item: dict[str, Any], versions: list[str]) -> Iterator[str]:
    """Yield what is wrong with an object, for any of the versions of Kubernetes."""
    models = MODELS.get(item["apiVersion"])
    try:
        if models:
            dump = getattr(models, item["kind"]).model_validate(item)
            yield from find_unknown(item, dump.model_dump(mode="json", by_alias=True, exclude_unset=True), item["kind"])
        else:
            for version in versions:
                utils.validate(item, version, strict=True)
    except (ValueError, utils.ValidationError, utils.SchemaNotFoundError) as error:
        yield str(getattr(error, "message", error))


if __name__ == "__main__":
    utils.schema_contents = functools.cache(utils.schema_contents)
    for each in json.load(sys.stdin):
        for problem in find_problems(each, sys.argv[1:]):
            sys.stdout.write(f"{each['kind']} {each['metadata']['name']}: {problem}\n")
