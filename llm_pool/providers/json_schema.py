"""Rewrites JSON schemas for APIs that enforce only a part of JSON Schema.

OpenAI: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
Anthropic: https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["ANTHROPIC", "OPENAI", "SchemaRules", "UnsupportedSchema", "root_of", "strict"]


class SchemaRules(NamedTuple):
    """What an API enforces of a JSON schema, besides the keywords that every API does.

    ``keywords``      constraints, such as "minimum"
    ``formats``       values of "format"
    ``all_required``  whether each property of an object must be required
    """

    keywords: frozenset[str]
    formats: frozenset[str]
    all_required: bool


_FORMATS = frozenset({"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"})
OPENAI = SchemaRules(
    frozenset(
        {"exclusiveMaximum", "exclusiveMinimum", "maxItems", "maximum", "minItems", "minimum", "multipleOf"}
        | {"pattern"}
    ),
    _FORMATS,
    all_required=True,
)
ANTHROPIC = SchemaRules(frozenset(), _FORMATS | {"uri"}, all_required=False)

_KEPT = frozenset({"const", "description", "enum", "title", "type"})
_UNIONS = ("anyOf", "oneOf", "allOf")
_REWRITTEN = frozenset({"$defs", "$ref", "additionalProperties", "discriminator", "items", "properties"})
_REWRITTEN |= {"required", *_UNIONS}  # what ``_strict`` writes anew, or leaves out
_UNSUPPORTED = ("patternProperties", "prefixItems", "not", "if", "dependentRequired", "dependentSchemas")


class UnsupportedSchema(Exception):
    """A part of a schema that no API enforces. The message says where it is, and what."""


def root_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Return ``schema`` with its definition in place of a "$ref" at its root, as recursive types have."""
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    return {**schema["$defs"][name], "$defs": schema["$defs"]} if name in schema.get("$defs", ()) else schema


def strict(schema: dict[str, Any], rules: SchemaRules, name: str) -> dict[str, Any]:
    """Return ``schema`` with only what the API enforces by ``rules``; ``name`` is that of its type.

    Objects have no keys but their properties. Constraints that the API does not enforce, and defaults, become
    a part of the description, which the model reads. Raises ``UnsupportedSchema`` for free keys, free types
    and tuples.
    """
    definitions = schema.get("$defs") or {}
    result = _strict(schema, rules, name)
    if definitions:
        result["$defs"] = {each: _strict(value, rules, each) for each, value in definitions.items()}
    return result


def _strict(schema: Any, rules: SchemaRules, where: str) -> dict[str, Any]:
    if not isinstance(schema, dict) or not schema.keys() & {"type", "$ref", "enum", "const", *_UNIONS}:
        raise UnsupportedSchema(f"{where} can have any type")
    for name in _UNSUPPORTED:
        if name in schema:
            raise UnsupportedSchema(
                f"{where} is a tuple" if name == "prefixItems" else f"{where} has {name!r}"
            )
    result = {name: value for name, value in schema.items() if name in _KEPT}
    notes = []
    for name, value in schema.items():
        if _is_enforced(name, value, rules):
            result[name] = value
        elif name not in _KEPT and name not in _REWRITTEN and (name, value) != ("default", None):
            notes.append(f"{name}: {value}")
    if notes:
        result["description"] = " ".join(
            [*filter(None, [schema.get("description")]), f"({', '.join(notes)})"]
        )
    result |= _members(schema, rules, where)
    if "$ref" in schema:
        result |= {"anyOf": [{"$ref": schema["$ref"]}]} if result else {"$ref": schema["$ref"]}
    return result


def _is_enforced(name: str, value: Any, rules: SchemaRules) -> bool:
    if name == "format":
        return value in rules.formats
    if name == "pattern" and "(?" in str(value):
        return False  # no API supports lookaround
    return name in rules.keywords


def _members(schema: dict[str, Any], rules: SchemaRules, where: str) -> dict[str, Any]:
    """Return the keywords of ``schema`` that contain schemas, with strict schemas in them."""
    result: dict[str, Any] = {}
    for name in _UNIONS:
        if name in schema:
            if name == "allOf" and len(schema[name]) > 1:
                raise UnsupportedSchema(f"{where} has 'allOf'")
            result["anyOf"] = [_strict(member, rules, where) for member in schema[name]]
    if schema.get("type") == "object":
        if schema.get("additionalProperties", "properties" not in schema) is not False:
            raise UnsupportedSchema(f"{where} can have any keys")
        properties = schema.get("properties") or {}
        result["properties"] = {
            name: _strict(value, rules, f"{where}.{name}") for name, value in properties.items()
        }
        result["required"] = list(properties) if rules.all_required else schema.get("required", [])
        result["additionalProperties"] = False
    if schema.get("type") == "array":
        result["items"] = _strict(schema.get("items"), rules, f"{where}[]")
    return result
