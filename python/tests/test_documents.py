"""The types of documents are those of the OpenAPI document."""

from __future__ import annotations

import json
import pathlib
import typing
from typing import Any, Literal, Optional

from outlast import documents

_PATH = pathlib.Path(__file__).parents[2] / "dashboard" / "openapi.json"
SCHEMAS: dict[str, Any] = json.loads(_PATH.read_text())["components"]["schemas"]
PLAIN = {"string": str, "integer": int, "number": float, "boolean": bool}


def described(schema: Any) -> Any:
    """The Python type of values that a schema describes."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        # A task's spec stays a plain dict: it is what the user wrote.
        return dict[str, Any] if name == "TaskSpec" else getattr(documents, name)
    if "oneOf" in schema:
        kinds = [described(one) for one in schema["oneOf"] if one.get("type") != "null"]
        assert len(kinds) == 1 and len(schema["oneOf"]) == 2, schema
        return Optional[kinds[0]]
    if "enum" in schema:
        return Literal[tuple(schema["enum"])]
    kinds = schema.get("type")
    if isinstance(kinds, list):
        (kind,) = (kind for kind in kinds if kind != "null")
        return Optional[described({**schema, "type": kind})]
    if kinds == "array":
        return list[described(schema["items"])]  # type: ignore[misc]
    if kinds == "object":
        return dict[str, described(schema.get("additionalProperties") or {})]  # type: ignore[misc]
    return PLAIN.get(kinds, Any)


def shown(kind: Any) -> str:
    """Text of a type; the order of a Literal's words says nothing."""
    if typing.get_origin(kind) is Literal:
        return f"Literal{sorted(typing.get_args(kind))}"
    args = typing.get_args(kind)
    name = getattr(typing.get_origin(kind), "__name__", None) or getattr(kind, "__name__", str(kind))
    return f"{name}[{', '.join(map(shown, args))}]" if args else name


def test_documents_are_those_of_the_api() -> None:
    names = [name for name in vars(documents) if name in SCHEMAS]
    assert len(names) > 25, names
    for name in names:
        ours, schema = getattr(documents, name), SCHEMAS[name]
        if "enum" in schema:
            assert shown(ours) == shown(described(schema)), name
            continue
        fields = {key: shown(kind) for key, kind in typing.get_type_hints(ours).items()}
        theirs = {key: shown(described(value)) for key, value in schema["properties"].items()}
        assert fields == theirs, name
        assert set(ours.__required_keys__) == set(schema.get("required", ())), name


def test_every_public_type_is_a_document() -> None:
    imported = {"annotations", "Any", "Literal", "Optional", "TypedDict"}
    ours = {name for name in vars(documents) if not name.startswith("_")} - imported
    assert ours <= set(SCHEMAS), ours - set(SCHEMAS)
