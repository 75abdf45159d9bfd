"""A validator for the part of JSON Schema that ``docs/llmpool_check.schema.json`` uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["errors_in"]

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs/llmpool_check.schema.json").read_text(encoding="utf-8")
)
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
KNOWN = {"type", "enum", "required", "properties", "additionalProperties", "items", "$ref"}
WORDS = {"description", "title", "$schema", "$defs"}


def errors_in(value: Any, schema: Any = SCHEMA, path: str = "$") -> list[str]:
    """The errors of ``value``. Raises AssertionError for a schema with keywords not supported here."""
    assert set(schema) <= KNOWN | WORDS, (
        f"{path}: this validator does not support {set(schema) - KNOWN - WORDS}"
    )
    if "$ref" in schema:
        return errors_in(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], path)
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is(value, kind) for kind in kinds):
        return [f"{path}: {value!r} is no {kinds}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{path}: {value!r} is none of {schema['enum']}"]
    if isinstance(value, dict):
        return _errors_in_object(value, schema, path)
    if isinstance(value, list):
        return [
            error
            for number, item in enumerate(value)
            for error in errors_in(item, schema["items"], f"{path}[{number}]")
        ]
    return []


def _errors_in_object(value: dict[str, Any], schema: Any, path: str) -> list[str]:
    errors = [f"{path}: {name} is missing" for name in schema.get("required", ()) if name not in value]
    for name, item in value.items():
        known = schema.get("properties", {}).get(name, schema["additionalProperties"])
        if known is False:
            errors.append(f"{path}: {name} is not known")
        else:
            errors += errors_in(item, known, f"{path}.{name}")
    return errors


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, TYPES[kind])
