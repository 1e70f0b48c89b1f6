"""Every environment variable that Keyturn reads, with its meaning: the source of the README table and `.env.example`.

In a name `<P>` stands for a provider in capitals (`GROQ`) and `<n>` for a number.
"""

from __future__ import annotations

from typing import NamedTuple


class Variable(NamedTuple):
    """One variable, or a family of them. *default* is what holds when it is unset or blank; `-` for nothing."""

    name: str
    default: str
    meaning: str


VARIABLES: tuple[Variable, ...] = (
    Variable("<P>_API_KEY", "-", "A key of provider P; it has number 0."),
    Variable("<P>_API_KEY_<n>", "-", "Further keys, any number, gaps allowed; blanks are ignored, duplicates dropped."),
    Variable(
        "<P>_API_BASE",
        "the provider's own",
        "Another base URL for a known provider; with an unknown name, a server that speaks the OpenAI API.",
    ),
    Variable(
        "<P>_DIALECT",
        "the provider's own",
        "The wire format that P is spoken to in: `openai_chat`, `openai_responses`, `anthropic`, `gemini`.",
    ),
    Variable("<P>_MODELS", "-", "Models that P serves besides those it lists: JSON or separated by commas."),
    Variable("<P>_CHAT_MODEL", "-", "The model of P to use when none is asked for."),
    Variable(
        "QUOTA_GROUP_<P>", "every key its own", "Numbers of the keys that share a quota: `1,2;3` (a bare key is 0)."
    ),
    Variable("KEY_PLAN_<P>", "-", "The plan of P's keys: `free` or `paid`; `plan:` in models.yaml wins over it."),
    Variable("KEY_WEIGHTS_<P>", "1 each", "Shares of the keys under `weighted`: `1:3,2:1`."),
    Variable(
        "ROTATION_MODE_<P>", "balanced", "`balanced`, `round_robin`, `sequential`, `weighted`, `fastest`, `cheapest`."
    ),
    Variable("PROVIDER_PRIORITY_<P>", "the catalog's", "Provider tier, 1 first."),
    Variable(
        "MAX_CONCURRENT_REQUESTS_PER_KEY_<P>",
        "unlimited",
        "Calls in flight per key; with `_BALANCED`, `_SEQUENTIAL` … at its end for that rotation mode only.",
    ),
    Variable(
        "LIMITS_<P>",
        "what the provider reports",
        "Limits of each key and model, over limits.yaml: `rpm=30 tpm=6000 rpd=14400 tpd=500000 concurrency=4`.",
    ),
    Variable("USE_PAID_MODELS", "false", "Whether routes that are marked paid may be used."),
    Variable("FREE_ONLY_MODE", "false", "`true` is another way to say `USE_PAID_MODELS=false`."),
    Variable("ALLOWED_MODEL_TIERS", "all", "Price tiers to use: of `free,cheap,budget,performance,ultra`."),
    Variable("PROXY_API_KEY", "made in DATA/caller.key", "The key that callers of the gateway present."),
    Variable("PROXY_ENV", ".env", "The env file to read; `--env-file` wins. It never overrides the environment."),
    Variable("KEYTURN_DATA", ".cache", "The data folder."),
    Variable("KEYTURN_HOST", "127.0.0.1", "The address to listen on."),
    Variable("KEYTURN_PORT", "8000", "The port to listen on."),
    Variable("KEYTURN_ALLOWED_HOSTS", "-", "Further Host names to answer for, separated by commas."),
    Variable("GLOBAL_TIMEOUT", "-", "Seconds that a call may take to its first content, over all attempts."),
    Variable("TIMEOUT_CONNECT", "5", "Seconds to connect to an upstream."),
    Variable("TIMEOUT_TLS", "5", "Seconds for its TLS handshake."),
    Variable("TIMEOUT_FIRST_TOKEN", "60", "Seconds to the first token of an attempt."),
    Variable("TIMEOUT_REASONING_FIRST_TOKEN", "300", "The same for reasoning models."),
    Variable("TIMEOUT_SILENCE", "120", "Seconds without a byte inside an answer (old name TIMEOUT_READ_STREAMING)."),
    Variable("TIMEOUT_NO_CONTENT", "300", "Seconds of pings and comments without content."),
    Variable("TIMEOUT_TOTAL", "600", "Seconds for the whole call (old name TIMEOUT_READ_NON_STREAMING)."),
    Variable("TIMEOUT_QUEUE_WAIT", "20", "Seconds that a call waits for a key when none is free."),
    Variable(
        "DISCORD_BOT_TOKEN",
        "-",
        "The bot's token. This and all below are for `keyturn bot` and `keyturn watch`, not in this version.",
    ),
    Variable("DISCORD_APP_ID", "-", "The bot's application."),
    Variable("DISCORD_GUILD_ID", "-", "The bot's server."),
    Variable("DISCORD_COMMANDS_CHANNEL_ID", "-", "Where the bot takes commands."),
    Variable("DISCORD_UPDATES_CHANNEL_ID", "-", "Where the bot tells news."),
    Variable("DISCORD_MESSAGE_CONTENT", "0", "`1`: the bot may read messages."),
    Variable("DISCORD_MEMBERS", "0", "`1`: the bot may list members."),
    Variable("DISCORD_PRESENCE", "0", "`1`: the bot may see who is there."),
    Variable(
        "COMMUNICATIONS_WEBHOOK_URL",
        "-",
        "Where messages of the role communications go; any other role's name will do.",
    ),
    Variable("PROJECT_MANAGER_WEBHOOK_URL", "-", "The same for project_manager."),
    Variable("SENIOR_DEV_WEBHOOK_URL", "-", "The same for senior_dev."),
    Variable("JUNIOR_DEV_WEBHOOK_URL", "-", "The same for junior_dev."),
    Variable("RELEASE_QA_WEBHOOK_URL", "-", "The same for release_qa."),
    Variable("ORCHESTRATOR_ROLES", "all", "Roles that `keyturn watch` serves, separated by commas."),
    Variable("OBSIDIAN_VAULT_PATH", "-", "The folder of notes of `keyturn watch`."),
    Variable(
        "LOG_LEVEL", "INFO", "How much `keyturn bot` and `keyturn watch` log: `DEBUG`, `INFO`, `WARNING`, `ERROR`."
    ),
)
