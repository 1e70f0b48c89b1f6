"""The shape of settings.toml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from .model import CooldownProfile, Durability, EquivalentsMode, GroupsLearned, LogFormat, SharingScope, WithoutRedis
from .shape import Shape, Text, described
from .shape_models import PriceTier

Seconds = Annotated[float, Field(gt=0)] | None
Count = Annotated[int, Field(gt=0)] | None


class ServerShape(Shape):
    """Where the gateway listens and what it accepts."""

    host: Text | None = described("The address to listen on; 127.0.0.1 unless said.", "127.0.0.1")
    port: Annotated[int, Field(ge=0, le=65535)] | None = described("The port; 8000 unless said.", 8000)
    allowed_hosts: tuple[Text, ...] | None = described("Further Host names to answer for.", ["llm.example.com"])
    trust_local: bool | None = described("Programs of this machine need no caller key; false unless said.", False)
    log_requests: bool | None = described(
        "Keep requests and answers in `DATA/requests/`, redacted; false unless said.", True
    )
    log_format: LogFormat | None = described("`console` unless said.", "json")
    max_body_mib: Annotated[float, Field(gt=0)] | None = described("The largest request; 32 unless said.", 32)
    drain_seconds: Annotated[float, Field(ge=0)] | None = described(
        "Seconds that running calls get when the gateway stops; 30 unless said.", 30
    )
    grace_seconds: Annotated[float, Field(ge=0)] | None = described(
        "Seconds that calls are still taken after SIGTERM, while `/readyz` already says 503; 0 unless said. "
        "`KEYTURN_GRACE_SECONDS` wins over it.",
        5,
    )
    workers: Count = described("Processes that share the port; more than one needs `REDIS_URL`; 1 unless said.", 4)
    max_connections: Count = described("Open connections of clients; 10,000 unless said.", 10_000)
    max_connections_per_ip: Annotated[int, Field(ge=0)] | None = described(
        "The same from one address; 0, no such bound, unless said.", 200
    )
    memory_limit_mib: Annotated[float, Field(ge=0)] | None = described(
        "From 85 % of it on, requests above 64 KiB are refused; 0, what the container may use, unless said.", 1024
    )
    metrics: bool | None = described("Figures at `/metrics`; true unless said. `METRICS_ENABLED` wins over it.", False)


class CooldownShape(Shape):
    """How long a key rests after a failure."""

    profile: CooldownProfile | None = described(
        "`adaptive` (short at first, longer each time), `fixed` (60 s), or `patient` (60 minutes after a rate limit, "
        "24 hours after a day's quota, 10 minutes after the third fault); adaptive unless said.",
        "adaptive",
    )


class TimeoutsShape(Shape):
    """Seconds that each phase may take. `TIMEOUT_<NAME>` wins over each."""

    connect: Seconds = described("To connect; 5 unless said.", 5)
    tls: Seconds = described("For the TLS handshake; 5 unless said.", 5)
    first_token: Seconds = described("To the first token of an attempt; 60 unless said.", 60)
    reasoning_first_token: Seconds = described("The same for models that think first; 300 unless said.", 300)
    silence: Seconds = described("Without a byte inside an answer; 120 unless said.", 120)
    no_content: Seconds = described("With pings and comments only; 300 unless said.", 300)
    total: Seconds = described("For the whole call; 600 unless said.", 600)
    to_content: Seconds = described(
        "To a call's first content, over all its attempts (`GLOBAL_TIMEOUT`); no bound but total unless said.", 90
    )
    queue_wait: Seconds = described("That a call waits for a key when none is free; 20 unless said.", 20)
    models_ttl: Seconds = described("That a provider's list of models is believed; 300 unless said.", 300)
    adaptive: bool | None = described(
        "first_token and no_content follow what each model usually takes; false unless said.", True
    )
    adaptive_floor: Seconds = described("The least that `adaptive` makes of them; 10 unless said.", 10)


class CacheShape(Shape):
    """Answers that are kept and given again. `CACHE_<NAME>` wins over each. Off while no routes are named."""

    routes: tuple[Text, ...] | None = described(
        "Names as clients ask for them, with shell wildcards.", ["fast", "g4f/*"]
    )
    ttl: Seconds = described("Seconds that an answer is given again; 300 unless said.", 300)
    max_entries: Count = described("Answers that are kept; 10,000 unless said.", 10_000)
    max_bytes: Count = described("Bytes of all of them; 64 MiB unless said.", 67_108_864)
    max_answer: Count = described("A larger answer is not kept; 1 MiB unless said.", 1_048_576)
    scope: SharingScope | None = described(
        "`caller`: an answer is given to the caller who caused it; `shared`: to everybody who may ask for the name; "
        "caller unless said.",
        "caller",
    )


class CoalesceShape(Shape):
    """Identical calls under way share one call upstream. `COALESCE_<NAME>` wins. Off while no routes are named."""

    routes: tuple[Text, ...] | None = described(
        "Names as clients ask for them, with shell wildcards.", ["fast", "g4f/*"]
    )
    max_buffer: Count = described(
        "Bytes of an answer up to which another call may join, and by which a slow client may stay behind; 1 MiB "
        "unless said.",
        1_048_576,
    )
    scope: SharingScope | None = described("As in [cache]; caller unless said.", "caller")


class StreamShape(Shape):
    """How streams are begun, and what becomes of those that are cut. `STREAM_<NAME>` wins over each."""

    hold_tools: tuple[Text, ...] | None = described(
        "Names as clients ask for them, with shell wildcards, whose calls of tools and whose JSON are held back until "
        "they are whole; none unless said.",
        ["senior_dev", "openrouter/*"],
    )
    continue_: tuple[Text, ...] | None = described(
        "Names whose texts go on elsewhere when their stream is cut, where a model can go on with a text; none unless "
        "said.",
        ["senior_dev"],
        alias="continue",
    )
    continue_elsewhere: tuple[Text, ...] | None = described(
        "Those of them that another model of the same plan may go on with; none unless said.", ["senior_dev"]
    )
    commit_after: Annotated[float, Field(ge=0)] | None = described(
        "Seconds without content after which a stream begins all the same, with comments that say how long it will "
        "wait; never unless said.",
        10,
    )


class WaitingShape(Shape):
    """Calls that wait for a key when none is free. `WAITING_<NAME>` wins over each."""

    most: Count = described("How many may wait at the same time; 1,000 unless said.", 1000)
    most_bytes: Count = described("Bytes of their requests together; 256 MiB unless said.", 268_435_456)
    batch_wait: Seconds = described(
        "Seconds that a call of class batch waits; the others wait for `queue_wait` of [timeouts]. 120 unless said.",
        120,
    )
    for_cache: Annotated[float, Field(ge=0, le=600)] | None = described(
        "Seconds that a call waits at most for the key that holds its prompt cache, though others are free, where that "
        "is cheaper; 0: never. 10 unless said.",
        10,
    )
    usd_per_hour: Annotated[float, Field(ge=0)] | None = described(
        "What an hour of such waiting is worth, to be weighed against tokens that are processed anew; 60 unless said.",
        60,
    )


Percent = Annotated[float, Field(gt=0, lt=100)] | None
Part = Annotated[float, Field(gt=0, lt=1)] | None


class RetriesShape(Shape):
    """Second tries of calls whose first one failed. `RETRIES_<NAME>` wins over each."""

    budget: bool | None = described(
        "They are bounded while a provider fails, so that it is not asked twice as often just then; true unless said.",
        False,
    )


class BreakerShape(Shape):
    """What becomes of a provider that is down. `BREAKER_<NAME>` wins over each."""

    enabled: bool | None = described(
        "It is left alone but for one probe every few seconds, where [cooldown] profile is adaptive; true unless said.",
        False,
    )


class ConcurrencyShape(Shape):
    """How many requests an upstream is sent at once. `CONCURRENCY_<NAME>` wins over each."""

    learned: bool | None = described(
        "After an overload it is sent fewer at once, then more again bit by bit; true unless said.", False
    )


class HedgingShape(Shape):
    """Slow answers are asked for a second time. `HEDGING_<NAME>` wins over each. Off while no routes are named."""

    routes: tuple[Text, ...] | None = described("Names as clients ask for them, with shell wildcards.", ["fast"])
    percentile: Percent = described("Slower than so many of a hundred answers like it; 95 unless said.", 95)
    most_requests: Part = described(
        "The share of requests that are sent a second time at most; 0.02 unless said.", 0.02
    )
    most_cost: Part = described("The share of all cost that this may be; 0.05 unless said.", 0.05)


class RedisShape(Shape):
    """Live state that many gateways share. Its address is a secret, and therefore only in `REDIS_URL`."""

    prefix: Text | None = described("Of every key in it. `REDIS_PREFIX` wins over it; keyturn unless said.", "keyturn")
    without: WithoutRedis | None = described(
        "Providers' limits while it is away: `local_share` (each gateway its part), `closed` (no calls) or `open` (no "
        "limits). Limits in money are closed in any case. `REDIS_WITHOUT` wins over it; local_share unless said.",
        "local_share",
    )
    least_replicas: Count = described(
        "By how many a limit is divided at least while it is away. `REDIS_LEAST_REPLICAS` wins; 1 unless said.", 2
    )


class LedgerShape(Shape):
    """The durable record of calls. `LEDGER_<NAME>` wins over each. With `DATABASE_URL` it is in PostgreSQL."""

    enabled: bool | None = described("Whether there is one; true unless said.", True)
    durable: Durability | None = described(
        "`normal`: survives a crash of the gateway; `full`: of the machine too; normal unless said.", "normal"
    )
    keep_days: Annotated[float, Field(gt=0, le=36_500)] | None = described(
        "Days that single calls are kept; sums per day stay. 90 unless said.", 90
    )
    most_spooled: Count = described(
        "Bytes in the data folder that may wait for a database that is away; 1 GiB unless said.", 1_073_741_824
    )


class ResponsesShape(Shape):
    """What `/v1/responses` keeps. `RESPONSES_<NAME>` wins over each."""

    store: bool | None = described(
        "Answers are kept for `previous_response_id` and `GET /v1/responses/{id}`; false unless said.", True
    )
    keep_days: Annotated[float, Field(gt=0, le=36_500)] | None = described("Days; 30 unless said.", 30)


class LearningShape(Shape):
    """Limits that nobody states, and keys that share one. `LEARNING_<NAME>` wins over each."""

    enabled: bool | None = described(
        "They are learned from 429s, and what others use of a key from `remaining` headers; true unless said.", False
    )
    groups: GroupsLearned | None = described(
        "What becomes of keys that turn out to share one quota, where you did not say which do: `infer` (they are "
        "treated as one quota group, and you are told), `suggest` (you are told), `off`; infer unless said.",
        "suggest",
    )


class RoutingShape(Shape):
    """Who may answer for whom."""

    equivalents: EquivalentsMode | None = described(
        "Which groups of the same model are used: `shipped` (and those of models.yaml), `own` (these alone), `off`. "
        "`KEYTURN_EQUIVALENTS` wins over it; shipped unless said.",
        "own",
    )


class ProvidersShape(Shape):
    """What holds for all providers."""

    use_paid_models: bool | None = described("Whether paid routes are used; `USE_PAID_MODELS` wins over it.", False)
    allowed_model_tiers: tuple[PriceTier, ...] | None = described(
        "Price tiers to use; all unless said. `ALLOWED_MODEL_TIERS` wins over it.", ["free", "cheap"]
    )
    timeout: Seconds = described(
        "The older way to bound an attempt's time to its first content; [timeouts] wins over it.", 30.0
    )
    max_retries: Annotated[int, Field(ge=0)] | None = described(
        "Without effect: another key or provider is tried as long as one is left.", 3
    )


class OpenSection(Shape):
    """A section for other programs: members that are not listed are kept as they are."""

    model_config = ConfigDict(extra="allow")


class GeneralShape(OpenSection):
    """What all programs share."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None = described(
        "For `keyturn bot` and `keyturn watch`; INFO unless said.", "INFO"
    )


class DiscordShape(OpenSection):
    """For `keyturn bot`. The variables `DISCORD_<NAME>` win over its members, `<NAME>_WEBHOOK_URL` over webhooks."""

    enabled: bool | None = described("Whether the bot runs.", False)
    bot_token: str | None = described("Its token, best as a variable.", "${DISCORD_BOT_TOKEN}")
    app_id: int | str | None = described("The application.", "1234567890")
    guild_id: int | str | None = described("The server.", "1234567890")
    commands_channel_id: int | str | None = described("Where it takes commands.", "1234567890")
    updates_channel_id: int | str | None = described(
        "Where `keyturn watch` tells what a role answered that has no webhook.", "1234567890"
    )
    message_content: bool | None = described("It may read messages.", False)
    members: bool | None = described("It may list members.", False)
    presence: bool | None = described("It may see who is there.", False)
    webhooks: dict[str, str] = described(
        "By role: where its messages go.", {"senior_dev": "${SENIOR_DEV_WEBHOOK_URL}"}, default={}
    )


class VaultShape(OpenSection):
    """A folder of notes."""

    path: str | None = described("Where it is; `OBSIDIAN_VAULT_PATH` wins over it.", "~/vault")


class OrchestratorShape(OpenSection):
    """For `keyturn watch`."""

    watch_interval: Annotated[float, Field(gt=0)] = described("Seconds between looks.", 1.0, default=1.0)
    max_concurrent_tasks: Annotated[int, Field(ge=1)] = described("Tasks at the same time.", 5, default=5)
    roles: tuple[Text, ...] | None = described(
        "Roles with a folder of their own in the inbox; all unless said. `ORCHESTRATOR_ROLES` wins over it.",
        ["senior_dev", "junior_dev"],
    )


class WatchShape(OpenSection):
    """For `keyturn watch`; the bot puts ideas into the same inbox."""

    inbox: str | None = described("Where tasks are dropped.", "inbox")
    outbox: str | None = described("Where answers land.", "outbox")
    roles: tuple[Text, ...] | None = described(
        "Who answers a file of the inbox itself, one after the other: roles or any other names of models. The first "
        "role unless said.",
        ["senior_dev"],
    )


class SettingsFile(Shape):
    """settings.toml: everything that is neither a provider, a route, a limit nor a caller."""

    general: GeneralShape = described("What all programs share.", default=GeneralShape())
    server: ServerShape = described("Where the gateway listens and what it accepts.", default=ServerShape())
    cooldown: CooldownShape = described("How long a key rests after a failure.", default=CooldownShape())
    timeouts: TimeoutsShape = described("Seconds that each phase may take.", default=TimeoutsShape())
    cache: CacheShape = described("Answers that are kept and given again.", default=CacheShape())
    coalesce: CoalesceShape = described("Identical calls that share one call upstream.", default=CoalesceShape())
    waiting: WaitingShape = described("Calls that wait for a key.", default=WaitingShape())
    stream: StreamShape = described("How streams begin, and go on when they are cut.", default=StreamShape())
    retries: RetriesShape = described("Second tries of calls whose first one failed.", default=RetriesShape())
    breaker: BreakerShape = described("What becomes of a provider that is down.", default=BreakerShape())
    concurrency: ConcurrencyShape = described("Requests that are sent at once.", default=ConcurrencyShape())
    hedging: HedgingShape = described("Slow answers that are asked for again.", default=HedgingShape())
    redis: RedisShape = described("Live state that many gateways share.", default=RedisShape())
    ledger: LedgerShape = described("The durable record of calls.", default=LedgerShape())
    responses: ResponsesShape = described("What `/v1/responses` keeps.", default=ResponsesShape())
    learning: LearningShape = described("Limits that nobody states.", default=LearningShape())
    providers: ProvidersShape = described("What holds for all providers.", default=ProvidersShape())
    routing: RoutingShape = described("Who may answer for whom.", default=RoutingShape())
    discord: DiscordShape = described("For `keyturn bot`.", default=DiscordShape())
    vault: VaultShape = described("A folder of notes.", default=VaultShape())
    orchestrator: OrchestratorShape = described("For `keyturn watch`.", default=OrchestratorShape())
    watch: WatchShape = described("For `keyturn watch`.", default=WatchShape())
