"""Requests of Gemini's own API, checked as strictly as Google does, in its words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import signatures
from .answers import Medium, Offer, Question, Result, Said, Unusable, tokens_of
from .checks import Asking, decoded
from .gemini_fields import COUNT, EMBED, EMBEDS, GENERATE, known

_DATA = (
    "text inlineData fileData functionCall functionResponse executableCode codeExecutionResult toolCall toolResponse"
).split()
_MIMES = re.compile(r"^(image/(png|jpeg|webp|heic|heif)|audio/.+|video/.+|text/.+|application/(pdf|x-javascript))$")
_FUNCTION = re.compile(r"^[A-Za-z_][\w.:-]{0,63}$")
_MODES = ("AUTO", "ANY", "NONE", "VALIDATED", "MODE_UNSPECIFIED")
_LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH", "THINKING_LEVEL_UNSPECIFIED")
_PLACE = "* GenerateContentRequest"
_UNSET = "data: required oneof field 'data' must have one initialized field"


def read_generate(body: Mapping[str, Any], asking: Asking) -> Question:
    """What a `generateContent` or `countTokens` request asks for."""
    if asking.action == "countTokens":
        given = _known(body, COUNT)
        given = given.get("generateContentRequest") or given
    else:
        given = _known(body, GENERATE)
    contents = given.get("contents") or []
    if not contents:
        raise Unusable(f"{_PLACE}.contents: contents is not specified\n", "contents")
    turns = [_turn(content, place, asking) for place, content in enumerate(contents)]
    if system := given.get("systemInstruction"):
        turns.insert(0, _turn(dict(system, role="user"), -1, asking)._replace(role="system"))
    _check_order(contents)
    if "gemini-3" in asking.model:
        _check_signed(contents)
    tools = [_offer(row, f"{_PLACE}.tools[{place}].function_declarations[{number}]")
             for place, tool in enumerate(given.get("tools") or [])
             for number, row in enumerate(tool.get("functionDeclarations") or [])]  # fmt: skip
    question = Question(turns, tokens_of(turns, given.get("tools")), tools, more=given)
    _choose((given.get("toolConfig") or {}).get("functionCallingConfig") or {}, question)
    _configure(given.get("generationConfig") or {}, question, asking.model)
    if given.get("cachedContent"):
        raise Unusable("CachedContent not found (or permission denied)", "cached_content")
    return question


def read_embeddings(body: Mapping[str, Any], asking: Asking) -> Question:
    """What `embedContent` and `batchEmbedContents` ask for; *more* holds `requests` either way."""
    if asking.action == "embedContent":
        requests = [_known(body, EMBED)]
    else:
        requests = _known(body, EMBEDS).get("requests") or []
    turns = []
    for place, request in enumerate(requests):
        wanted = str(request.get("model") or asking.model).removeprefix("models/")
        if wanted != asking.model:
            raise Unusable(
                f"* BatchEmbedContentsRequest.requests[{place}].model: must be equal to the model of the batch"
            )
        turns.append(_turn(dict(request.get("content") or {}, role="user"), place, asking))
    if not turns:
        raise Unusable("* BatchEmbedContentsRequest.requests: requests is not specified", "requests")
    total = sum(tokens_of([turn]) for turn in turns)
    return Question(turns, total, more={"requests": requests})


def _known(body: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    faults: list[str] = []
    found = known(body, table, "", faults)
    if faults:
        raise Unusable("\n".join(faults), "body", "unknown_name")
    return dict(found)


def _turn(content: Mapping[str, Any], place: int, asking: Asking) -> Said:
    role = content.get("role") or "user"
    if role not in ("user", "model"):
        raise Unusable("Please use a valid role: user, model.", "contents")
    where = f"contents[{place}]" if place >= 0 else "system_instruction"
    parts = content.get("parts") or []
    if not parts:
        raise Unusable(f"{_PLACE}.{where}.parts: contents.parts must not be empty.", "contents")
    texts: list[str] = []
    results: list[Result] = []
    media: list[Medium] = []
    for number, part in enumerate(parts):
        _read_part(part, f"{where}.parts[{number}]", asking, (texts, results, media))
    return Said("assistant" if role == "model" else "user", " ".join(texts), tuple(results), tuple(media))


def _read_part(
    part: Mapping[str, Any], where: str, asking: Asking, into: tuple[list[str], list[Result], list[Medium]]
) -> None:
    texts, results, media = into
    held = [name for name in _DATA if part.get(name) is not None]
    if not held:
        raise Unusable(f"{_PLACE}.{where}.{_UNSET}", "contents")
    if len(held) > 1:
        raise Unusable(f"Invalid value at '{where}' (oneof), oneof field 'data' is already set. Cannot set '{held[1]}'")
    signature = part.get("thoughtSignature")
    if signature is not None and not signatures.fits_call(asking.owner, asking.model, signature):
        raise Unusable("Corrupted thought signature.", "contents")
    if part.get("text") is not None:
        if not isinstance(part["text"], str):
            raise Unusable(f"Invalid value at '{where}' (text), {part['text']}", "contents", "unknown_name")
        texts.append(part["text"])
    elif "functionCall" in held:
        _check_function(part["functionCall"], "args", f"{where}.function_call")
        texts.append(json.dumps(part["functionCall"].get("args") or {}))
    elif "functionResponse" in held:
        answer = part["functionResponse"]
        _check_function(answer, "response", f"{where}.function_response")
        if answer.get("response") is None:
            raise Unusable(f"{_PLACE}.{where}.function_response.response: Struct must be set", "contents")
        for number, inner in enumerate(answer.get("parts") or []):
            media.append(_medium(inner, f"{where}.function_response.parts[{number}]"))
        results.append(_result(answer["response"]))
    elif held[0] in ("inlineData", "fileData"):
        media.append(_medium(part, where))


def _check_function(function: Mapping[str, Any], member: str, where: str) -> None:
    if not function.get("name"):
        raise Unusable(f"{_PLACE}.{where}.name: Name cannot be empty.", "contents")
    given = function.get(member)
    if given is not None and not isinstance(given, dict):
        shown = f'"{given}"' if isinstance(given, str) else given
        raise Unusable(
            f"Invalid value at '{where}.{member}' (type.googleapis.com/google.protobuf.Struct), {shown}",
            "contents",
            "unknown_name",
        )


def _result(response: Mapping[str, Any]) -> Result:
    for name in ("result", "output", "error"):
        if response.keys() == {name} and isinstance(response[name], str):
            return Result(response[name], name == "error")
    return Result(json.dumps(response, ensure_ascii=False), "error" in response)


def _medium(part: Mapping[str, Any], where: str) -> Medium:
    blob, file = part.get("inlineData"), part.get("fileData")
    mime = str((blob or file or {}).get("mimeType") or "")
    kind = {"application": "document", "text": "document"}.get(mime.partition("/")[0], mime.partition("/")[0])
    if file is not None:
        if not file.get("fileUri"):
            raise Unusable(f"{_PLACE}.{where}.file_data.file_uri: File URI must be set", "contents")
        return Medium(kind or "file", mime, where=str(file["fileUri"]))
    if blob is None:
        raise Unusable(f"{_PLACE}.{where}.{_UNSET}", "contents")
    if not _MIMES.match(mime):
        raise Unusable(f"Unsupported MIME type: {mime}", "contents")
    data = str(blob.get("data") or "").replace("-", "+").replace("_", "/")
    content = decoded(data + "=" * (-len(data) % 4) if "=" not in data else data)
    if content is None:
        shown = json.dumps(str(blob.get("data")))
        raise Unusable(
            f"Invalid value at '{where}.inline_data.data' (TYPE_BYTES), Base64 decoding failed for {shown}",
            "contents",
            "unknown_name",
        )
    if not content:
        raise Unusable("Unable to process input image. Please retry or report in the support forum.", "contents")
    return Medium(kind, mime, len(content))


def _count(content: Mapping[str, Any], name: str) -> int:
    return sum(part.get(name) is not None for part in content.get("parts") or [])


def _check_order(contents: Sequence[Mapping[str, Any]]) -> None:
    """Calls and answers in turn, as many answers as calls."""
    expected = 0
    for place, content in enumerate(contents):
        calls, answers = _count(content, "functionCall"), _count(content, "functionResponse")
        if answers and not expected:
            raise Unusable(
                "Please ensure that function response turn comes immediately after a function call turn.", "contents"
            )
        if answers != expected:
            raise Unusable(
                "Please ensure that the number of function response parts is equal to the number of function call "
                "parts of the function call turn.",
                "contents",
            )
        if calls and (place == 0 or contents[place - 1].get("role") == "model" or content.get("role") != "model"):
            raise Unusable(
                "Please ensure that function call turn comes immediately after a user turn or after a function "
                "response turn.",
                "contents",
            )
        expected = calls
    if expected:
        raise Unusable(
            "Please ensure that the number of function response parts is equal to the number of function call parts "
            "of the function call turn.",
            "contents",
        )


def _check_signed(contents: Sequence[Mapping[str, Any]]) -> None:
    """Each first call of a step of the current turn, which began with what the user said last, is signed."""
    began = 0
    for place, content in enumerate(contents):
        if content.get("role") != "model" and not _count(content, "functionResponse"):
            began = place
    for place in range(began, len(contents)):
        calls = [part for part in contents[place]["parts"] if part.get("functionCall") is not None]
        if calls and not calls[0].get("thoughtSignature"):
            raise Unusable(
                "Function call is missing a thought_signature in functionCall parts. This is required for tools to "
                "work correctly, and missing thought_signature may lead to degraded model performance. Additional "
                f"data, function call `default_api:{calls[0]['functionCall']['name']}` , position {place + 1}. Please "
                "refer to https://ai.google.dev/gemini-api/docs/thought-signatures for more details.",
                "contents",
            )


def _offer(row: Mapping[str, Any], where: str) -> Offer:
    if not _FUNCTION.match(str(row.get("name", ""))):
        raise Unusable(
            f"{where}.name: Invalid function name. Must start with a letter or an underscore. Must be alphanumeric "
            "(a-z, A-Z, 0-9), underscores (_), dots (.), colons (:), or dashes (-), with a maximum length of 64.",
            "tools",
        )
    if row.get("parameters") is not None and row.get("parametersJsonSchema") is not None:
        raise Unusable(f"{where}: only one of parameters and parameters_json_schema may be set.", "tools")
    if row.get("parameters") is not None:
        _check_schema(row["parameters"], f"{where.removeprefix('* GenerateContentRequest.')}.parameters")
    return Offer(str(row["name"]), row.get("parameters") or row.get("parametersJsonSchema"))


def _check_schema(schema: Any, where: str) -> None:
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("type"), list):
        raise Unusable(
            f"Invalid JSON payload received. Unknown name \"type\" at '{where}': Proto field is not repeating, cannot "
            "start list.",
            "tools",
            "unknown_name",
        )
    for name, part in (schema.get("properties") or {}).items():
        _check_schema(part, f"{where}.properties[{name}]")
    _check_schema(schema.get("items"), f"{where}.items")
    for place, part in enumerate(schema.get("anyOf") or []):
        _check_schema(part, f"{where}.any_of[{place}]")


def _choose(config: Mapping[str, Any], question: Question) -> None:
    mode = str(config.get("mode", "AUTO"))
    if mode not in _MODES:
        raise Unusable(
            f"Invalid value at 'tool_config.function_calling_config.mode' "
            f'(type.googleapis.com/google.ai.generativelanguage.v1beta.FunctionCallingConfig.Mode), "{mode}"',
            "tool_config",
            "unknown_name",
        )
    names = config.get("allowedFunctionNames") or []
    offered = {tool.name for tool in question.tools}
    if names and mode not in ("ANY", "VALIDATED"):
        raise Unusable("Please set allowed_function_names only when function calling mode is ANY.", "tool_config")
    if unknown := [name for name in names if name not in offered]:
        raise Unusable(f"allowed_function_names: {unknown[0]} is not among the function declarations.", "tool_config")
    if mode == "ANY" and not offered:
        raise Unusable("Function calling mode is ANY but no function declarations are provided.", "tool_config")
    question.mode = "any" if mode == "ANY" else "none" if mode == "NONE" else "auto"
    question.names = names


def _configure(config: Mapping[str, Any], question: Question, model: str) -> None:
    question.bound = config.get("maxOutputTokens")
    if question.bound is not None and question.bound < 1:
        raise Unusable(f"max_output_tokens must be positive, but got {question.bound}.", "generation_config")
    question.stop = config.get("stopSequences") or []
    if len(question.stop) > 5:
        raise Unusable("The number of stop_sequences must not exceed 5.", "generation_config")
    question.choices = config.get("candidateCount") or 1
    if not 1 <= question.choices <= 8:
        raise Unusable("candidate_count must be in the range [1, 8].", "generation_config")
    if not 0 <= (config.get("temperature") or 0) <= 2:
        raise Unusable("temperature must be in the range [0.0, 2.0].", "generation_config")
    schema, json_schema = config.get("responseSchema"), config.get("responseJsonSchema")
    if schema is not None and json_schema is not None:
        raise Unusable("Only one of response_schema and response_json_schema may be set.", "generation_config")
    wanted = config.get("responseMimeType")
    if (schema is not None or json_schema is not None) and wanted != "application/json":
        raise Unusable("response_schema requires response_mime_type application/json.", "generation_config")
    if schema is not None:
        _check_schema(schema, "generation_config.response_schema")
    if wanted == "application/json" and question.tools and "gemini-3" not in model:
        raise Unusable("Function calling with a response mime type: 'application/json' is unsupported")
    question.schema = schema if schema is not None else json_schema
    question.json = wanted == "application/json"
    _think(config.get("thinkingConfig") or {}, question, model)


def _think(config: Mapping[str, Any], question: Question, model: str) -> None:
    level, budget = config.get("thinkingLevel"), config.get("thinkingBudget")
    if level is not None and budget is not None:
        raise Unusable("You can only set only one of thinking budget and thinking level.", "generation_config")
    if level is not None and "gemini-3" not in model:
        raise Unusable("Thinking level is not supported for this model.", "generation_config")
    if level is not None and str(level).upper() not in _LEVELS:
        raise Unusable(f"Invalid value at 'generation_config.thinking_config.thinking_level', \"{level}\"")
    if budget is not None and "2.5" not in model:
        raise Unusable("Thinking budget is not supported for this model.", "generation_config")
    if budget == 0 and "2.5-pro" in model:
        raise Unusable("Budget 0 is invalid. This model only works in thinking mode.", "generation_config")
    question.thinking = bool(config) and budget != 0
    question.shown = config.get("includeThoughts") is True
