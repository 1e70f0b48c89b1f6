"""Requests in the shape that command line agents send them; the texts are our own."""

from __future__ import annotations

import json
from typing import Any

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASK = '[call: weather {"city": "Rome"}] What is it like outside?'

CLAUDE_CODE_HEADERS = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27",
    "x-claude-code-session-id": "5a9d",
    "x-stainless-lang": "js",
}


def claude_code(model: str) -> dict[str, Any]:
    """Claude Code: a billing line in front, a system message midway, thinking that is not shown, cache marks."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **WEATHER, "additionalProperties": False}
    marked = {"type": "ephemeral", "ttl": "1h"}
    return {
        "model": model,
        "max_tokens": 32000,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=9.9.9; cc_entrypoint=cli;"},
            {"type": "text", "text": "You are an agent in a terminal.", "cache_control": marked},
            {"type": "text", "text": "Work in /srv/project.", "cache_control": marked},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "<reminder>Mind the date.</reminder>"}]},
            {"role": "system", "content": "The user has opened notes.txt."},
            {"role": "user", "content": [{"type": "text", "text": ASK, "cache_control": {"type": "ephemeral"}}]},
        ],
        "tools": [
            {"name": "weather", "description": "Tells the weather.", "input_schema": schema},
            {"name": "mcp__files__read", "description": "Reads.", "input_schema": {"type": "object", "properties": {}}},
        ],
        "thinking": {"type": "adaptive", "display": "omitted"},
        "output_config": {"effort": "medium"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "metadata": {"user_id": json.dumps({"device_id": "d1", "account_uuid": "", "session_id": "s-41"})},
    }


CODEX_HEADERS = {"originator": "codex_cli", "session-id": "s-42", "thread-id": "s-42", "x-client-request-id": "s-42"}


def codex(model: str) -> dict[str, Any]:
    """Codex: instructions as a first item, tools in a namespace and one of the provider's own, nothing stored."""
    inner = {"type": "function", "name": "read", "description": "Reads a file.", "parameters": WEATHER, "strict": False}

    def said(role: str, text: str) -> dict[str, Any]:
        return {"type": "message", "id": f"msg_{role}", "role": role, "content": [{"type": "input_text", "text": text}]}

    return {
        "model": model,
        "input": [
            said("developer", "You are an agent in a terminal."),
            said("user", "<env>/srv</env>"),
            said("user", ASK),
        ],
        "tools": [
            {"type": "function", "name": "weather", "description": "Weather", "parameters": WEATHER, "strict": False},
            {"type": "namespace", "name": "files", "description": "Files", "tools": [inner]},
            {"type": "web_search"},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "s-42",
        "client_metadata": {"origin": "terminal"},
    }


GEMINI_CLI_HEADERS = {"x-goog-api-client": "google-genai-sdk/1.0", "user-agent": "GeminiCLI/0.6"}


def gemini_cli(model: str) -> dict[str, Any]:
    """Gemini CLI: both spellings of members, eight tools, thinking with a budget, safety settings."""
    named = ("list_files", "read_file", "search", "glob", "edit", "write_file", "web_fetch")
    more = [
        {
            "name": name,
            "description": name.replace("_", " "),
            "parameters_json_schema": {"type": "object", "properties": {"path": {"type": "string"}}},
        }
        for name in named
    ]
    old = {"type": "OBJECT", "properties": {"city": {"type": "STRING", "description": "City"}}, "required": ["city"]}
    return {
        "contents": [
            {"role": "user", "parts": [{"text": "Context: the folder is /srv."}]},
            {"role": "model", "parts": [{"text": "Understood."}]},
            {"role": "user", "parts": [{"text": ASK}]},
        ],
        "systemInstruction": {"role": "user", "parts": [{"text": "You are an agent in a terminal."}]},
        "tools": [{"functionDeclarations": [{"name": "weather", "description": "Weather", "parameters": old}, *more]}],
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "generationConfig": {
            "temperature": 1,
            "topP": 0.95,
            "topK": 64,
            "thinkingConfig": {"include_thoughts": True, "thinkingBudget": 8192},
        },
    }


OPENCODE_HEADERS = {"x-session-id": "s-43", "x-session-affinity": "s-43"}


def opencode(model: str) -> dict[str, Any]:
    """opencode: chat with tools."""
    tool = {"name": "weather", "description": "Weather", "parameters": WEATHER | {"additionalProperties": False}}
    return {
        "model": model,
        "max_tokens": 32000,
        "messages": [
            {"role": "system", "content": "You are an agent in a terminal."},
            {"role": "user", "content": [{"type": "text", "text": ASK}]},
        ],
        "tools": [{"type": "function", "function": tool}],
        "tool_choice": "auto",
        "stream_options": {"include_usage": True},
    }


def opencode_title(model: str) -> dict[str, Any]:
    """Its other call: a title for the conversation."""
    return {
        "model": model,
        "max_tokens": 32000,
        "messages": [
            {"role": "system", "content": "You give titles. Answer with a title of at most 50 characters."},
            {"role": "user", "content": "Give a title to this conversation:\n"},
            {"role": "user", "content": "What is it like outside?"},
        ],
        "stream_options": {"include_usage": True},
    }


AGENTS = {
    "claude_code": ("anthropic", claude_code, CLAUDE_CODE_HEADERS),
    "codex": ("openai_responses", codex, CODEX_HEADERS),
    "gemini_cli": ("gemini", gemini_cli, GEMINI_CLI_HEADERS),
    "opencode": ("openai_chat", opencode, OPENCODE_HEADERS),
}
"""Agent -> its dialect, its first request for a model, its headers."""
