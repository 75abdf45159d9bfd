"""JSON schemas in the part of JSON Schema that an API enforces."""

from __future__ import annotations

from typing import Any

import pytest

from llm_pool.exceptions import InvalidParameter, InvalidRequest
from llm_pool.providers import PROVIDERS
from llm_pool.providers.json_schema import ANTHROPIC, OPENAI, UnsupportedSchema, root_of, strict
from tests.providers.test_custom_provider import Parrot

TEXT = {"type": "string"}
BOTH = [pytest.param(OPENAI, id="openai"), pytest.param(ANTHROPIC, id="anthropic")]


def obj(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """An object with these properties, as pydantic writes it."""
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


@pytest.mark.parametrize("rules", BOTH)
def test_each_object_has_its_properties_and_no_other_keys(rules: Any) -> None:
    schema = obj(("a", "b"), a=obj(("c",), c=TEXT), b={"type": "array", "items": obj(("d",), d=TEXT)})
    result = strict(schema, rules, "Thing")
    for each in (result, result["properties"]["a"], result["properties"]["b"]["items"]):
        assert each["additionalProperties"] is False
        assert each["required"] == list(each["properties"])
    assert "additionalProperties" not in schema


def test_optional_properties_are_required_where_the_api_knows_only_required_ones() -> None:
    schema = obj(("a",), a=TEXT, b={**TEXT, "default": "x"})
    assert strict(schema, OPENAI, "Thing")["required"] == ["a", "b"]
    assert strict(schema, ANTHROPIC, "Thing")["required"] == ["a"]
    assert strict(obj(a=TEXT), ANTHROPIC, "Thing")["required"] == []


@pytest.mark.parametrize(
    ("schema", "openai", "anthropic"),
    [
        (
            {"type": "integer", "minimum": 1, "maximum": 5},
            {"type": "integer", "minimum": 1, "maximum": 5},
            {"type": "integer", "description": "(minimum: 1, maximum: 5)"},
        ),
        (
            {"type": "string", "minLength": 2, "description": "A name."},
            {"type": "string", "description": "A name. (minLength: 2)"},
            {"type": "string", "description": "A name. (minLength: 2)"},
        ),
        (
            {"type": "string", "pattern": "^a"},
            {"type": "string", "pattern": "^a"},
            {"type": "string", "description": "(pattern: ^a)"},
        ),
        (
            {"type": "string", "pattern": "^(?!a)"},
            {"type": "string", "description": "(pattern: ^(?!a))"},
            {"type": "string", "description": "(pattern: ^(?!a))"},
        ),
        (
            {"type": "string", "format": "date"},
            {"type": "string", "format": "date"},
            {"type": "string", "format": "date"},
        ),
        (
            {"type": "string", "format": "uri"},
            {"type": "string", "description": "(format: uri)"},
            {"type": "string", "format": "uri"},
        ),
        ({"type": "string", "default": None}, TEXT, TEXT),
        (
            {"type": "string", "default": "x"},
            {"type": "string", "description": "(default: x)"},
            {"type": "string", "description": "(default: x)"},
        ),
        ({"enum": ["a", 1]}, {"enum": ["a", 1]}, {"enum": ["a", 1]}),
        ({"const": "a"}, {"const": "a"}, {"const": "a"}),
        (
            {"$ref": "#/$defs/Cat", "description": "the cat"},
            {"anyOf": [{"$ref": "#/$defs/Cat"}], "description": "the cat"},
            {"anyOf": [{"$ref": "#/$defs/Cat"}], "description": "the cat"},
        ),
        ({"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Cat"}),
        (
            {"oneOf": [TEXT, {"type": "null"}], "discriminator": {"propertyName": "kind"}},
            {"anyOf": [TEXT, {"type": "null"}]},
            {"anyOf": [TEXT, {"type": "null"}]},
        ),
        ({"allOf": [TEXT]}, {"anyOf": [TEXT]}, {"anyOf": [TEXT]}),
    ],
)
def test_what_an_api_does_not_enforce_is_in_the_description(schema: Any, openai: Any, anthropic: Any) -> None:
    for rules, expected in ((OPENAI, openai), (ANTHROPIC, anthropic)):
        assert strict(obj(("a",), a=schema), rules, "Thing")["properties"]["a"] == expected


@pytest.mark.parametrize("rules", BOTH)
@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({}, "Thing.a can have any type"),
        ({"title": "A"}, "Thing.a can have any type"),
        (True, "Thing.a can have any type"),
        ({"type": "array"}, "Thing.a[] can have any type"),
        ({"type": "array", "items": {}}, "Thing.a[] can have any type"),
        ({"type": "object"}, "Thing.a can have any keys"),
        ({"type": "object", "additionalProperties": TEXT}, "Thing.a can have any keys"),
        ({**obj(b=TEXT), "additionalProperties": True}, "Thing.a can have any keys"),
        ({**obj(b=TEXT), "patternProperties": {"^x": TEXT}}, "Thing.a has 'patternProperties'"),
        ({"type": "array", "prefixItems": [TEXT]}, "Thing.a is a tuple"),
        ({"allOf": [TEXT, TEXT]}, "Thing.a has 'allOf'"),
        ({"anyOf": [TEXT, {}]}, "Thing.a can have any type"),
    ],
)
def test_what_no_api_enforces_is_named_with_its_place(rules: Any, schema: Any, says: str) -> None:
    with pytest.raises(UnsupportedSchema) as caught:
        strict(obj(("a",), a=schema), rules, "Thing")
    assert str(caught.value) == says


@pytest.mark.parametrize("rules", BOTH)
def test_definitions_are_rewritten_too(rules: Any) -> None:
    schema = {**obj(("a",), a={"$ref": "#/$defs/Cat"}), "$defs": {"Cat": obj(("n",), n=TEXT)}}
    assert strict(schema, rules, "Thing")["$defs"]["Cat"]["additionalProperties"] is False
    schema["$defs"]["Cat"]["properties"]["n"] = {}
    with pytest.raises(UnsupportedSchema, match=r"^Cat\.n can have any type$"):
        strict(schema, rules, "Thing")


def test_the_root_of_a_recursive_type_is_an_object() -> None:
    node = obj(("next",), next={"$ref": "#/$defs/Node"})
    assert root_of({"$ref": "#/$defs/Node", "$defs": {"Node": node}}) == {**node, "$defs": {"Node": node}}
    assert root_of(node) is node


def test_openai_gets_a_strict_schema_where_that_is_possible() -> None:
    openai = PROVIDERS["openai"]()
    params = openai.output_params("Thing", obj(("a",), a=TEXT))
    expected = {"name": "Thing", "schema": strict(obj(("a",), a=TEXT), OPENAI, "Thing"), "strict": True}
    assert params == {"response_format": {"type": "json_schema", "json_schema": expected}}
    free = obj(("a",), a={"type": "object", "additionalProperties": TEXT})
    given = openai.output_params("Thing", free)["response_format"]["json_schema"]
    assert given == {"name": "Thing", "schema": free, "strict": False}


def test_anthropic_gets_a_schema_that_it_enforces() -> None:
    anthropic = PROVIDERS["anthropic"]()
    schema = strict(obj(a=TEXT), ANTHROPIC, "Thing")
    assert anthropic.output_params("Thing", obj(a=TEXT)) == {
        "output_config": {"format": {"type": "json_schema", "schema": schema}}
    }
    with pytest.raises(
        InvalidParameter, match=r"cannot enforce Thing: Thing\.a can have any type\. Use lists"
    ):
        anthropic.output_params("Thing", obj(a={}))


def test_a_provider_without_structured_output_says_what_to_do() -> None:
    with pytest.raises(InvalidRequest, match="'parrot' has no structured output for a type; give"):
        Parrot().output_params("Thing", obj(a=TEXT))
