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
        "G4F_MAIN_API_BASE",
        "-",
        "Where a G4F server answers, for every model that no endpoint below is for (also `G4F_API_BASE`).",
    ),
    Variable("G4F_GROQ_API_BASE", "-", "The same for models with `groq` in their name."),
    Variable("G4F_GROK_API_BASE", "-", "For models with `grok`."),
    Variable("G4F_GEMINI_API_BASE", "-", "For models with `gemini`."),
    Variable("G4F_NVIDIA_API_BASE", "-", "For models with `nvidia` or `nemotron`."),
    Variable("G4F_ALLOW_INSECURE_HTTP", "false", "Whether these may be `http://` on other machines than this one."),
    Variable(
        "<P>_DIALECT",
        "the provider's own",
        "The wire format that P is spoken to in: `openai_chat`, `openai_responses`, `anthropic`, `gemini`.",
    ),
    Variable(
        "<P>_AUTH",
        "a key",
        "How P is logged in to instead: gemini and vertex `adc`, azure `entra` or `managed_identity` (docs/login.md).",
    ),
    Variable(
        "VERTEX_PROJECT",
        "the credential file's",
        "The Google Cloud project of vertex; it or the next one switches Google's default credentials on.",
    ),
    Variable("VERTEX_LOCATION", "global", "Its location: `global`, `europe-west4`, `us` …"),
    Variable("VERTEX_CREDENTIALS", "Google's default credentials", "The file of a service account for vertex."),
    Variable("VERTEX_CREDENTIALS_<n>", "-", "Further ones."),
    Variable(
        "GOOGLE_APPLICATION_CREDENTIALS",
        "gcloud's file",
        "Google's default credentials; read where `VERTEX_PROJECT`, `VERTEX_LOCATION` or `<P>_AUTH=adc` asks.",
    ),
    Variable("GOOGLE_CLOUD_PROJECT", "-", "Stands in for `VERTEX_PROJECT`."),
    Variable(
        "GCE_METADATA_HOST",
        "Google's",
        "Another metadata server, for machines that have an account of their own.",
    ),
    Variable("AZURE_TENANT_ID", "-", "The tenant of an Entra service principal for azure."),
    Variable("AZURE_CLIENT_ID", "-", "Its client id; of a managed identity that is not the machine's only one."),
    Variable("AZURE_CLIENT_SECRET", "-", "Its secret."),
    Variable("AZURE_CLIENT_SECRET_<n>", "-", "Further ones, each with `AZURE_CLIENT_ID_<n>`."),
    Variable("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com", "Entra of another cloud."),
    Variable(
        "AZURE_TOKEN_SCOPE",
        "https://cognitiveservices.azure.com/.default",
        "What a token of Entra is for; `https://ai.azure.com/.default` at addresses of services.ai.azure.com.",
    ),
    Variable(
        "<P>_ACCESS_TOKEN",
        "-",
        "A login of huggingface, gemini or vertex (`keyturn login export`); also `<P>_<n>_ACCESS_TOKEN`, …",
    ),
    Variable("<P>_REFRESH_TOKEN", "-", "Gets a new token. When it is replaced the new one is kept in the data folder."),
    Variable("<P>_EXPIRY_DATE", "unknown", "When the access token ends: seconds or milliseconds since 1970."),
    Variable(
        "<P>_CLIENT_ID",
        "-",
        "The OAuth app that the tokens were given to; also for `keyturn login huggingface`.",
    ),
    Variable("<P>_CLIENT_SECRET", "-", "Its secret, if it has one."),
    Variable("<P>_EMAIL", "the variable's name", "Whose login it is: two that name the same are used once."),
    Variable("<P>_TOKEN_URI", "the provider's", "Where tokens are asked for."),
    Variable("<P>_PROJECT_ID", "-", "The Google Cloud project that pays."),
    Variable("<P>_MODELS", "-", "Models that P serves besides those it lists: JSON or separated by commas."),
    Variable(
        "<P>_CHAT_MODEL",
        "the catalog's: openrouter, groq and gemini have one",
        "What P is asked for when a call names no model (`auto`).",
    ),
    Variable(
        "<P>_EMBEDDING_MODEL",
        "the catalog's: openai, gemini and mistral have one",
        "The same for embeddings.",
    ),
    Variable(
        "QUOTA_GROUP_<P>", "every key its own", "Numbers of the keys that share a quota: `1,2;3` (a bare key is 0)."
    ),
    Variable("KEY_PLAN_<P>", "-", "The plan of P's keys: `free` or `paid`; `plan:` in models.yaml wins over it."),
    Variable("KEY_WEIGHTS_<P>", "1 each", "Shares of the keys under `weighted`: `1:3,2:1`."),
    Variable(
        "KEY_PRIORITIES_<P>",
        "all equal",
        "Key number and its priority, 1 is asked first: `1:1,2:1,3:2` (docs/keys.md).",
    ),
    Variable(
        "KEY_PRIORITY_FOR_<P>",
        "-",
        "Models that only keys of a priority or a better one may serve: `gemini-2.5-pro:1`.",
    ),
    Variable(
        "ROTATION_MODE_<P>", "balanced", "`balanced`, `round_robin`, `sequential`, `weighted`, `fastest`, `cheapest`."
    ),
    Variable("PROVIDER_PRIORITY_<P>", "the catalog's", "Provider tier, 1 (first) to 10."),
    Variable(
        "KEYTURN_EQUIVALENTS",
        "shipped",
        "Who may answer for the same model elsewhere: the `shipped` groups and your `own`, yours alone, or `off`.",
    ),
    Variable(
        "MAX_CONCURRENT_REQUESTS_PER_KEY_<P>",
        "unlimited",
        "Calls in flight per key; with `_BALANCED`, `_SEQUENTIAL` … at its end for that rotation mode only.",
    ),
    Variable(
        "OPTIMAL_CONCURRENT_REQUESTS_PER_KEY_<P>",
        "none",
        "Calls in flight per key up to which a key is preferred; the mode may stand at its end likewise.",
    ),
    Variable(
        "CONCURRENCY_MULTIPLIER_<P>_PRIORITY_<n>",
        "1",
        "By what the bound of calls in flight is multiplied for keys of priority n; the mode may stand at its end.",
    ),
    Variable(
        "SEQUENTIAL_FALLBACK_MULTIPLIER_<P>", "1", "The same under `sequential` for keys of every other priority."
    ),
    Variable(
        "QUOTA_GROUPS_<P>_<NAME>",
        "limits.yaml's",
        "Models that share one quota: `model-a,model-b`. Blank switches a group of that name off.",
    ),
    Variable(
        "CUSTOM_CAP_<P>",
        "-",
        "Bounds of your own: `model=gemini-2.5-pro priority=2 requests=40/day cooldown=1h; tokens=80%/minute`.",
    ),
    Variable(
        "FAIR_CYCLE_<P>",
        "true under sequential",
        "Whether a key that was exhausted waits until the others have been (also `FAIR_CYCLE_ENABLED_<P>`).",
    ),
    Variable("FAIR_CYCLE_TRACKING_MODE_<P>", "model_group", "What is exhausted: `model_group`, or the `credential`."),
    Variable("FAIR_CYCLE_CROSS_TIER_<P>", "false", "A cycle lasts until the keys of all key priorities are exhausted."),
    Variable("FAIR_CYCLE_DURATION_<P>", "24h", "After so long a cycle begins anew: seconds, or `90m`, `24h`, `7d`."),
    Variable(
        "EXHAUSTION_COOLDOWN_THRESHOLD",
        "300",
        "A rest of at least so many seconds means that a key is exhausted; with `_<P>` at its end for one provider.",
    ),
    Variable("SESSION_STICKINESS_TTL", "3600", "Seconds that a conversation prefers the key that answered it; 0: off."),
    Variable("IGNORE_MODELS_<P>", "-", "Models that may not be used, separated by commas, `*` and `?` allowed."),
    Variable("WHITELIST_MODELS_<P>", "-", "Models that may be used whatever `IGNORE_MODELS_<P>` says."),
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
    Variable(
        "KEYTURN_GRACE_SECONDS",
        "0",
        "Seconds that calls are still taken after SIGTERM, while `/readyz` says 503: 5 behind a load balancer.",
    ),
    Variable("METRICS_ENABLED", "true", "`false`: no figures are kept, and `/metrics` is not served."),
    Variable("GLOBAL_TIMEOUT", "-", "Seconds that a call may take to its first content, over all attempts."),
    Variable("TIMEOUT_CONNECT", "5", "Seconds to connect to an upstream."),
    Variable("TIMEOUT_TLS", "5", "Seconds for its TLS handshake."),
    Variable("TIMEOUT_FIRST_TOKEN", "60", "Seconds to the first token of an attempt."),
    Variable("TIMEOUT_REASONING_FIRST_TOKEN", "300", "The same for reasoning models."),
    Variable("TIMEOUT_SILENCE", "120", "Seconds without a byte inside an answer (old name TIMEOUT_READ_STREAMING)."),
    Variable("TIMEOUT_NO_CONTENT", "300", "Seconds of pings and comments without content."),
    Variable("TIMEOUT_TOTAL", "600", "Seconds for the whole call (old name TIMEOUT_READ_NON_STREAMING)."),
    Variable("TIMEOUT_QUEUE_WAIT", "20", "Seconds that a call waits for a key when none is free."),
    Variable("WAITING_BATCH_WAIT", "120", "The same for calls of class batch (docs/waiting.md)."),
    Variable("WAITING_MOST", "1000", "Calls that may wait for a key at the same time."),
    Variable("WAITING_MOST_BYTES", "268435456", "Bytes of their requests together."),
    Variable(
        "WAITING_FOR_CACHE",
        "10",
        "Seconds that a call waits at most for the key that holds its prompt cache; 0: never.",
    ),
    Variable("WAITING_USD_PER_HOUR", "60", "What an hour of that is worth, against tokens that are processed anew."),
    Variable("TIMEOUT_ADAPTIVE", "false", "Whether timeouts follow what each model usually takes."),
    Variable("TIMEOUT_ADAPTIVE_FLOOR", "10", "The least that `TIMEOUT_ADAPTIVE` makes of them, in seconds."),
    Variable("CACHE_ROUTES", "-", "Names whose answers are kept and given again, with shell wildcards: `fast,g4f/*`."),
    Variable("CACHE_TTL", "300", "Seconds that a kept answer is given again."),
    Variable("CACHE_MAX_ENTRIES", "10000", "Answers that are kept."),
    Variable("CACHE_MAX_BYTES", "67108864", "Bytes of all of them."),
    Variable("CACHE_MAX_ANSWER", "1048576", "Bytes of the largest answer that is kept."),
    Variable("CACHE_SCOPE", "caller", "`shared`: kept answers are given to every caller who may ask for the name."),
    Variable("COALESCE_ROUTES", "-", "Names whose identical calls share one call upstream while it is under way."),
    Variable("COALESCE_MAX_BUFFER", "1048576", "Bytes of an answer up to which another call may still join it."),
    Variable("COALESCE_SCOPE", "caller", "`shared`: calls of different callers share as well."),
    Variable("RETRIES_BUDGET", "true", "Second tries are bounded while a provider fails."),
    Variable("BREAKER_ENABLED", "true", "A provider that is down is left alone but for one probe every few seconds."),
    Variable("CONCURRENCY_LEARNED", "true", "An upstream that is overloaded is sent fewer requests at once."),
    Variable("HEDGING_ROUTES", "-", "Names whose slow answers are asked for a second time, with shell wildcards."),
    Variable("HEDGING_PERCENTILE", "95", "An answer is slow that is slower than so many of a hundred like it."),
    Variable("HEDGING_MOST_REQUESTS", "0.02", "The share of requests that are sent a second time at most."),
    Variable("HEDGING_MOST_COST", "0.05", "The share of all cost that this may be."),
    Variable(
        "STREAM_HOLD_TOOLS",
        "-",
        "Names whose streams hold calls of tools and JSON back until they are whole (docs/streams.md).",
    ),
    Variable("STREAM_CONTINUE", "-", "Names whose texts go on elsewhere when their stream is cut."),
    Variable("STREAM_CONTINUE_ELSEWHERE", "-", "Those of them that another model of the plan may go on with."),
    Variable(
        "STREAM_COMMIT_AFTER",
        "-",
        "Seconds without content after which a stream begins all the same, with comments (docs/waiting.md).",
    ),
    Variable(
        "REDIS_URL",
        "-",
        "Redis 6.2 or Valkey, where many gateways share limits and cooldowns (docs/replicas.md); needs the extra "
        "`redis`.",
    ),
    Variable("REDIS_PREFIX", "keyturn", "Of every key in it; gateways with the same one share their limits."),
    Variable(
        "REDIS_WITHOUT",
        "local_share",
        "Providers' limits while Redis is away: `local_share`, `closed` or `open`; limits in money are closed anyway.",
    ),
    Variable("REDIS_LEAST_REPLICAS", "1", "By how many each limit is divided at least while Redis is away."),
    Variable("DATABASE_URL", "-", "PostgreSQL for the ledger instead of SQLite; needs the extra `postgres`."),
    Variable("LEDGER_ENABLED", "true", "`false`: calls are not recorded, and budgets begin anew at a restart."),
    Variable("LEDGER_DURABLE", "normal", "`full`: a loss of power loses no call either, at a flush of the disk each."),
    Variable("LEDGER_KEEP_DAYS", "90", "Days that single calls are kept; sums per day stay."),
    Variable(
        "LEDGER_MOST_SPOOLED", "1073741824", "Bytes that may wait in the data folder for a database that is away."
    ),
    Variable(
        "RESPONSES_STORE",
        "false",
        "`true`: `/v1/responses` keeps its answers for `previous_response_id` and `GET /v1/responses/{id}`.",
    ),
    Variable("RESPONSES_KEEP_DAYS", "30", "Days that these are kept."),
    Variable(
        "LEARNING_ENABLED", "true", "Limits that nobody states are learned from what providers refuse (docs/limits.md)."
    ),
    Variable(
        "LEARNING_GROUPS",
        "infer",
        "Keys that turn out to share one quota are treated as a quota group (`infer`), told of (`suggest`), or neither "
        "(`off`); see docs/keys.md.",
    ),
    Variable("OTEL_EXPORTER_OTLP_ENDPOINT", "-", "Where traces and metrics go over OTLP; needs the extra `otel`."),
    Variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "-", "The whole URL for traces, where it is another."),
    Variable("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "-", "The whole URL for metrics, where it is another."),
    Variable("OTEL_EXPORTER_OTLP_HEADERS", "-", "Headers of what is sent there: `name=value,name=value`."),
    Variable("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "The only one that is spoken."),
    Variable("OTEL_TRACES_EXPORTER", "otlp", "`none`: no traces."),
    Variable("OTEL_METRICS_EXPORTER", "otlp", "`none`: no OpenTelemetry metrics; `/metrics` stays."),
    Variable("OTEL_SERVICE_NAME", "keyturn", "What the gateway is called in traces."),
    Variable("OTEL_SDK_DISABLED", "false", "`true`: nothing is exported, whatever else is set."),
    Variable(
        "DISCORD_BOT_TOKEN",
        "-",
        "The bot's token. This and all below are for `keyturn bot` and `keyturn watch`.",
    ),
    Variable("DISCORD_APP_ID", "-", "The bot's application."),
    Variable("DISCORD_GUILD_ID", "-", "The bot's server."),
    Variable("DISCORD_COMMANDS_CHANNEL_ID", "-", "Where the bot takes commands."),
    Variable(
        "DISCORD_UPDATES_CHANNEL_ID",
        "-",
        "Where `keyturn watch` tells what a role answered, if the role has no webhook.",
    ),
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
    Variable("ORCHESTRATOR_ROLES", "all", "Roles with a folder of their own in the inbox of `keyturn watch`."),
    Variable("OBSIDIAN_VAULT_PATH", "-", "The folder of notes, where feedback to the bot is kept."),
    Variable(
        "LOG_LEVEL", "INFO", "How much `keyturn bot` and `keyturn watch` log: `DEBUG`, `INFO`, `WARNING`, `ERROR`."
    ),
)
