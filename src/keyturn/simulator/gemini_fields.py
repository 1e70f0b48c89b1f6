"""The fields that Gemini's REST API knows in requests, as nested tables: what is not in one is refused.

True stands for anything, a table for an object, a list of one for a repeated field, `Map` for an object whose keys are
free. Names are in camelCase; requests may write each in snake_case too (proto JSON mapping).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple


class Map(NamedTuple):
    """An object with free keys."""

    values: Any


_SCHEMA: dict[str, Any] = dict.fromkeys(
    "type format title description nullable enum maxItems minItems maxProperties minProperties required minLength "
    "maxLength pattern example default propertyOrdering minimum maximum additionalProperties defs ref".split(),
    True,
)
_SCHEMA |= {"properties": Map(_SCHEMA), "items": _SCHEMA, "anyOf": [_SCHEMA]}

_BLOB = {"mimeType": True, "data": True, "displayName": True}
_FILE = {"mimeType": True, "fileUri": True, "displayName": True}
_PART: dict[str, Any] = {
    "text": True,
    "inlineData": _BLOB,
    "fileData": _FILE,
    "functionCall": {"id": True, "name": True, "args": True},
    "functionResponse": {
        "id": True,
        "name": True,
        "response": True,
        "parts": [{"inlineData": _BLOB, "fileData": _FILE}],
        "willContinue": True,
        "scheduling": True,
    },
    "executableCode": True,
    "codeExecutionResult": True,
    "toolCall": True,
    "toolResponse": True,
    "thought": True,
    "thoughtSignature": True,
    "videoMetadata": True,
    "partMetadata": True,
    "mediaResolution": True,
}
CONTENT: dict[str, Any] = {"role": True, "parts": [_PART]}
_FUNCTION: dict[str, Any] = {
    "name": True,
    "description": True,
    "behavior": True,
    "parameters": _SCHEMA,
    "parametersJsonSchema": True,
    "response": _SCHEMA,
    "responseJsonSchema": True,
}
_TOOL: dict[str, Any] = {"functionDeclarations": [_FUNCTION]} | dict.fromkeys(
    "googleSearch googleSearchRetrieval codeExecution urlContext computerUse fileSearch googleMaps mcpServers".split(),
    True,
)
_CONFIG: dict[str, Any] = dict.fromkeys(
    "temperature topP topK candidateCount maxOutputTokens stopSequences responseLogprobs logprobs presencePenalty "
    "frequencyPenalty seed responseMimeType responseJsonSchema responseFormat responseModalities mediaResolution "
    "speechConfig imageConfig enableEnhancedCivicAnswers continuationToken audioTranscriptionConfig".split(),
    True,
)
_CONFIG |= {
    "responseSchema": _SCHEMA,
    "thinkingConfig": {"includeThoughts": True, "thinkingBudget": True, "thinkingLevel": True},
}
GENERATE: dict[str, Any] = {
    "model": True,
    "contents": [CONTENT],
    "systemInstruction": CONTENT,
    "tools": [_TOOL],
    "toolConfig": {
        "functionCallingConfig": {"mode": True, "allowedFunctionNames": True, "streamFunctionCallArguments": True},
        "retrievalConfig": True,
        "includeServerSideToolInvocations": True,
    },
    "safetySettings": [{"category": True, "threshold": True}],
    "generationConfig": _CONFIG,
    "cachedContent": True,
    "serviceTier": True,
    "store": True,
}
COUNT: dict[str, Any] = {"contents": [CONTENT], "generateContentRequest": GENERATE}
EMBED: dict[str, Any] = {
    "model": True,
    "content": CONTENT,
    "taskType": True,
    "title": True,
    "outputDimensionality": True,
    "embedContentConfig": True,
}
EMBEDS: dict[str, Any] = {"requests": [EMBED]}

_WORD = re.compile(r"_([a-z0-9])")
_CAPITAL = re.compile(r"(?<!^)([A-Z])")


def snake(name: str) -> str:
    """As Google's own error texts write a field."""
    return _CAPITAL.sub(lambda found: f"_{found[1].lower()}", name)


def known(value: Any, table: Any, path: str, faults: list[str]) -> Any:
    """*value* with its fields in camelCase; what *table* does not know is told in *faults*, in Google's words."""
    if isinstance(table, list):
        if not isinstance(value, list):  # a single message stands for a list of one
            return [known(value, table[0], f"{path}[0]", faults)]
        return [known(part, table[0], f"{path}[{place}]", faults) for place, part in enumerate(value)]
    if isinstance(table, Map):
        rows = enumerate(value.items()) if isinstance(value, dict) else ()
        return {name: known(part, table.values, f"{path}[{place}].value", faults) for place, (name, part) in rows}
    if table is True or value is None:
        return value
    if not isinstance(value, dict):
        faults.append(f"Invalid value at '{path}', {_shown(value)}")
        return {}
    found = {}
    for name, part in value.items():
        camel = name if name in table else _WORD.sub(lambda hit: hit[1].upper(), name)
        if camel not in table:
            where = f" at '{path}'" if path else ""
            faults.append(f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.')
            continue
        inner = snake(camel)
        found[camel] = known(part, table[camel], f"{path}.{inner}" if path else inner, faults)
    return found


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
