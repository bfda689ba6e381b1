"""What a study may name: plug-ins with their parameters, formats with their sizes."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter, Depends

from bitfront import formats
from bitfront.api import kinds
from bitfront.api.answers import FormatAnswer, PluginAnswer, PluginsAnswer
from bitfront.api.openapi import problems
from bitfront.api.security import reader
from bitfront.plugins import Parameter

router = APIRouter(tags=["plugins"])

_JSON_TYPES = {
    "bool": "boolean",
    "int": "integer",
    "float": "number",
    "str": "string",
    "None": "null",
}
_SHAPE = (4096, 4096)


@router.get(
    "/v1/plugins",
    operation_id="list_plugins",
    summary="List plug-ins and formats",
    dependencies=[Depends(reader)],
    responses=problems(),
)
def list_plugins() -> PluginsAnswer:
    """Every plug-in with a JSON schema of its parameters, and every format."""
    return _all()


@cache
def _all() -> PluginsAnswer:
    return PluginsAnswer(
        kinds={kind: [_plugin(kind, name) for name in kinds.names(kind)] for kind in kinds.KINDS},
        formats=[
            FormatAnswer(
                name=name,
                num_bits=format.num_bits,
                group_columns=format.group_columns,
                bits_per_weight=format.bits_per_weight(_SHAPE),
            )
            for name, format in formats.catalogue().items()
        ],
    )


def _plugin(kind: str, name: str) -> PluginAnswer:
    found = kinds.declared(kind, name)
    properties = {key: _schema(parameter) for key, parameter in found.parameters.items()}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    return PluginAnswer(name=name, summary=found.summary, parameters=schema)


def _schema(parameter: Parameter) -> dict[str, Any]:
    types = [_JSON_TYPES[word] for word in parameter.words]
    return {"type": types[0] if len(types) == 1 else types, "default": parameter.default}
