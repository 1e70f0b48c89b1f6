"""The rows of the matrix: each fault, what must come of it, and tests elsewhere that assert it beside its stories.

A row with stories (see `stage`) is played plain and streamed, on memory and on Redis, as far as both make sense. Tests
elsewhere are named where they see what virtual time cannot: sockets, disks, processes, databases.
"""

from __future__ import annotations

from typing import NamedTuple

from . import connections, keys, pressure
from .stage import SCENARIOS

PLAYED = (connections, keys, pressure)
"""The files of the stories, which enter themselves."""


class Row(NamedTuple):
    """One fault. *tests*: ids of tests elsewhere that assert this row; *note*: what else a reader should know."""

    number: int
    fault: str
    expected: str
    tests: tuple[str, ...] = ()
    note: str = ""


def _of(place: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/{place}.py::test_{name}" for name in names)


FAULTS, STREAMS, LEDGER = "transport/test_faults", "scenario/test_streams", "stores/test_journal_ledger"
REDIS, LINK, BOOT = "stores/test_redis_state", "stores/test_redis_link_faults", "stores/test_redis_link_boot"
ROWS = (
    Row(
        1,
        "a name does not resolve",
        "another provider answers; no key is marked, the deployment rests",
        _of(FAULTS, "a_name_that_does_not_resolve_1", "the_system_says_that_a_name_does_not_exist_1"),
    ),
    Row(2, "connection refused", "the same", _of(FAULTS, "connection_refused_2")),
    Row(
        3,
        "packets vanish",
        "fails at the connect timeout (5 s), then the same",
        _of(FAULTS, "a_black_hole_ends_at_the_connect_timeout_3"),
    ),
    Row(
        4,
        "TLS: expired, wrong host, stalled handshake",
        "the key is never sent; then the same",
        _of(
            FAULTS,
            "a_bad_certificate_never_gets_the_key_4",
            "a_handshake_that_stalls_ends_at_the_tls_timeout_4",
            "a_peer_that_does_not_speak_tls_4",
        ),
    ),
    Row(
        5,
        "a reused connection was closed by the peer",
        "sent once more at once, nobody sees it",
        _of(FAULTS, "a_reused_connection_that_the_peer_closes_is_stale_5")
        + _of("scenario/test_stale", "a_stale_connection_is_sent_again_at_once_and_marks_nothing"),
    ),
    Row(
        6,
        "reset after the request was sent, before the headers",
        "another key answers; what may have been worked on stays charged and has a row of its own in the ledger",
        _of(FAULTS, "a_fresh_connection_closed_without_an_answer_is_reset_6")
        + _of("scenario/test_ledger", "every_attempt_of_a_call_that_fails_over")
        + _of("scenario/test_review_configuration", "an_attempt_that_was_sent_and_timed_out_keeps_the_money_it_held"),
    ),
    Row(
        7,
        "headers, then nothing",
        "given up in time, the upstream closed, another key answers",
        _of(FAULTS, "headers_and_then_silence_end_with_a_cancellation_7"),
    ),
    Row(8, "401 once, without an explicit code", "rests, then healthy; never called invalid"),
    Row(9, "401 for good on 1 of 10 keys", "one attempt, which no client sees; no more traffic"),
    Row(10, "401 on all keys within a minute", "no key becomes invalid; an alarm; an honest 503"),
    Row(11, "402, a spending limit", "the quota group is exhausted, another group answers"),
    Row(
        12,
        "403, or 404 for the model, on one key",
        "403: this model of this key rests, its others are served; 404: the next deployment, once each",
        note="A 404 is asked about once per deployment, not once per key.",
    ),
    Row(13, "429 with a delay of 46 s in the body", "rests 46 to 47 s"),
    Row(
        14,
        "429 of a day quota with a delay of 9 h",
        "exhausted for 9 h, also after a restart",
        _of("dispatch/test_restart", "what_stands_against_keys_comes_back_and_what_is_brief_does_not"),
    ),
    Row(15, "429 with a limit of 0", "not offered to this key; nobody waits hours for it"),
    Row(
        16,
        "`Retry-After` as a date, the provider's clock an hour off",
        "read by the answer's own `Date`",
        _of("scenario/test_review", "a_date_to_wait_for_is_read_by_the_upstreams_own_clock"),
    ),
    Row(
        17,
        "`Retry-After`: -5, NaN, 1e12, soon",
        "ignored: the first step of the cooldown table",
        _of("core/test_hints", "retry_after", "sane"),
    ),
    Row(
        18,
        "a 429, then older attempts that fail with shorter delays",
        "never shortened",
        _of("scenario/test_review", "a_burst_of_faults_in_flight_counts_once"),
    ),
    Row(19, "a success of an attempt that began before the 429", "the cooldown stands"),
    Row(20, "429 on one of two keys of a shared project", "both rest"),
    Row(21, "the provider halves its limits", "at most 3 answers of 429 until it is learned"),
    Row(22, "somebody else uses the same key", "learned from what the provider says remains"),
    Row(23, "every fifth answer is a 500", "at least 99.9 % answered, within the retry budget"),
    Row(24, "503 to everybody for 5 minutes", "at most 1.1 attempts per call; back within 10 s of the end"),
    Row(
        25,
        "529, overloaded",
        "no other key of that provider; the chain goes on",
        _of("scenario/test_failover", "an_overloaded_provider_is_not_asked_with_another_key"),
    ),
    Row(
        26,
        "302 to another host",
        "not followed, the key is not sent there",
        _of("transport/test_http", "a_redirect_is_returned_as_it_came_26")
        + _of("scenario/test_bad_input", "a_redirect_is_not_followed"),
    ),
    Row(27, "200 with an error in it", "classified as that error"),
    Row(28, "200 with a web page", "another key answers; nothing of the page is passed on"),
    Row(
        29,
        "a plain answer is cut",
        "another key answers: nothing was sent to the client yet",
        _of(FAULTS, "a_cut_body_29_31"),
    ),
    Row(30, "a stream begins with an error event", "invisible failover"),
    Row(
        31,
        "a stream is cut anywhere: at any byte, inside a character, inside `data:`, between events",
        "one error event, no terminal mark; tokens are settled",
        _of(STREAMS, "a_cut_after_output_ends_in_an_error_event", "a_cut_at_any_byte_is_never_silent")
        + _of("scenario/test_dialects_failover", "a_cut_after_output_ends_with_the_error_of_the_dialect"),
    ),
    Row(
        32,
        "a stream ends cleanly without its last event",
        "the same",
        _of(STREAMS, "a_cut_after_output_ends_in_an_error_event"),
    ),
    Row(
        33,
        "the terminal mark is missing, a finish reason was there",
        "accepted",
        _of(STREAMS, "a_stream_without_done_but_with_a_finish_is_complete"),
    ),
    Row(
        34,
        "a chunk every 59 s; pings for ever",
        "survives; is cut at 60 s before content, at 300 s after it",
        _of(STREAMS, "pings_alone_are_not_content", "STR_11_silence_after_output_is_a_cut"),
    ),
    Row(
        35,
        "chunks of one byte, 10 MB in one event, CR LF, a byte order mark, empty data",
        "read, or a bounded error",
        _of(FAULTS, "chunks_of_one_byte_in_packets_of_one_byte_35", "ten_megabytes_in_one_event_35")
        + _of("wire/test_sse", "every_kind_of_line_end", "a_longer_event_is_refused"),
    ),
    Row(
        36,
        "usage is missing, negative, huge, told twice",
        "the estimate stays; held within bounds; the last counts",
        _of("wire/test_usage", "what_tells_nothing", "absurd_figures_are_bounded")
        + _of("scenario/test_roles", "RTE_07_usage_that_nobody_told_is_estimated_and_marked_as_such"),
    ),
    Row(
        37,
        "a gzip bomb, nested members",
        "stopped at its bound",
        _of(
            "transport/test_decoding",
            "a_bomb_stops_early_37",
            "the_bound_counts_the_whole_answer_37",
            "honest_text_above_the_ratio_passes_while_it_is_short",
        ),
    ),
    Row(
        38,
        "headers of 1 MiB, 10,000 headers, line breaks inside",
        "refused; another provider answers",
        _of(
            FAULTS,
            "an_answer_that_is_no_answer_is_protocol_38",
            "a_bare_line_break_in_a_header_makes_no_header_of_the_previous_value_38",
        ),
    ),
    Row(
        39,
        "the client leaves: in the upload, the queue, the connect, before the first token, in the stream, in the drain",
        "the upstream is closed within 250 ms, nothing stays reserved",
        _of(
            "server/test_app",
            "a_client_that_leaves_while_it_sends_is_nobodys_call",
            "a_client_that_leaves_while_its_call_waits_cancels_it_within_250_ms",
            "a_client_that_leaves_mid_stream_closes_the_stream_within_250_ms",
        )
        + _of(FAULTS, "a_call_cancelled_while_it_connects_leaves_nothing")
        + _of("scenario/test_cancellation", "a_waiter_that_leaves_frees_its_place")
        + _of(
            "scenario/test_dialects_cancellation", "three_hundred_calls_of_mixed_dialects_cancelled_at_random_moments"
        ),
    ),
    Row(
        40,
        "cancelled twice with one turn of the loop between",
        "nothing leaks",
        _of(
            "scenario/test_cancellation",
            "two_thousand_calls_cancelled_at_random_moments",
            "cancelled_at_every_single_step",
        )
        + _of("transport/test_torture", "cancellation_leaves_nothing", "every_turn_of_a_call_can_be_its_last")
        + _of(REDIS, "a_thousand_cancelled_calls_leave_nothing"),
    ),
    Row(
        41,
        "a client that reads slowly, or not at all",
        "bounded memory, cut after a minute",
        _of("server/test_listener", "a_client_that_does_not_read_its_stream_is_cut_after_a_minute")
        + _of("transport/test_http", "on_sent_waits_until_the_peer_has_taken_the_body")
        + _of("scenario/test_coalescing", "CAC_03_a_slow_client_holds_up_nobody_and_is_told_when_it_is_cut_off"),
        "Many open streams at once: `make bench` and `make torture`.",
    ),
    Row(
        42,
        "headers or a body that never end",
        "closed in time, others are served",
        _of(
            "server/test_listener",
            "a_request_that_does_not_arrive_is_given_up_after_30_seconds",
            "a_head_without_end_is_refused_with_431",
            "an_upload_without_end_is_cut",
        )
        + _of(
            "server/test_guard",
            "one_connection_more_is_told_and_closed",
            "the_connection_that_is_idle_for_longest_makes_room",
        ),
    ),
    Row(
        43,
        "Redis: away at the start, lost, slow, full, read-only, failed over, scripts flushed, loading",
        "the policy of each limit; at most 50 ms; never a 500; what happened meanwhile is told afterwards",
        _of(BOOT, "what_may_pass_is_waited_for_ten_seconds", "a_redis_that_comes_up_meanwhile_is_used")
        + _of(
            LINK,
            "what_redis_refuses_is_told_in_words_and_reaches_no_call",
            "half_a_second_of_latency_opens_the_breaker_and_keeps_it_open",
            "a_redis_that_became_a_replica_is_not_used_until_it_is_a_primary_again",
            "flushed_scripts_are_loaded_again_and_the_order_stays",
        )
        + _of("stores/test_redis_link", "a_redis_that_hangs_costs_a_call_50_ms_and_is_found_again")
        + _of(REDIS, "policies_while_redis_is_away", "what_ended_while_redis_was_away_is_told_afterwards")
        + _of("stores/test_redis_state_calls", "without_redis_calls_go_on_but_money_is_refused"),
        "Concerns Redis alone.",
    ),
    Row(
        44,
        "Redis answers after our timeout",
        "the late grant is given back, nothing leaks",
        _of(
            REDIS,
            "an_answer_that_does_not_come_costs_no_call_and_leaks_nothing",
            "a_grant_that_comes_after_its_caller_left_is_given_back",
        )
        + _of("stores/test_redis_counts", "a_released_id_is_refused_in_redis_too")
        + _of("stores/test_redis_state_calls", "answers_that_stay_away_cost_no_call"),
        "Concerns Redis alone.",
    ),
    Row(
        45,
        "PostgreSQL away, deadlocked, slow",
        "rows wait in order, none is lost or doubled, no call waits",
        _of("scenario/test_ledger_away", "calls_go_on_while_the_database_is_away_and_none_is_missing_after")
        + _of(
            "stores/test_postgres",
            "a_server_that_is_killed_under_load_gets_every_row_once",
            "transactions_that_clash_are_tried_again",
            "a_lock_in_the_database_holds_up_no_call",
        )
        + _of(LEDGER, "a_database_that_is_away_keeps_nobody_waiting_and_loses_nothing"),
    ),
    Row(
        46,
        "the disk is full or read-only, SQLite is busy, its log is torn",
        "calls with a budget are refused, others served; recovered, or refused with what to do",
        _of("stores/test_journal", "a_disk_that_is_really_full_in_the_middle_of_a_line")
        + _of(
            LEDGER,
            "a_full_disk_refuses_who_pays_and_lets_others_go_on",
            "a_data_folder_that_cannot_be_written_ends_the_start",
        )
        + _of(
            "stores/test_sqlite",
            "while_another_program_holds_the_lock_rows_wait_in_the_journal",
            "the_log_of_a_killed_process_with_a_torn_end_is_recovered",
            "a_damaged_file_is_refused_with_what_to_do",
        ),
    ),
    Row(
        47,
        "`kill -9`, SIGTERM twice, one worker killed",
        "no acknowledged row is lost; clients are told; the worker comes back",
        _of("scenario/test_kills", "ten_kills_under_load")
        + _of("scenario/test_restart_process", "a_gateway_killed_at_once_after_its_answers_forgets_none_of_them")
        + _of("server/test_serve", "a_second_signal_stops_at_once_and_clients_are_told")
        + _of("server/test_workers", "a_worker_that_is_killed_is_started_again_while_the_other_answers"),
    ),
    Row(
        48,
        "the clock is set back an hour or ahead a day",
        "no key is used early, none is stuck",
        _of(
            "dispatch/test_restart",
            "a_wall_clock_that_went_back_keeps_nothing_longer_than_it_had_left",
            "a_wall_clock_that_was_set_ahead_frees_no_invalid_key_while_the_machine_runs_on",
        )
        + _of("contract/test_live_state", "a_calendar_limit_resets_with_the_wall_clock"),
    ),
    Row(
        49,
        "the configuration changes under load, a key goes in the middle of a stream",
        "running answers finish, the key is not used any more",
        _of(
            "scenario/test_reload",
            "calls_in_flight_finish_on_what_they_began_with",
            "a_storm_of_reloads_loses_no_call_and_leaves_nothing",
            "a_key_that_is_gone_leaves_nothing_behind",
        ),
    ),
    Row(
        50,
        "the event loop is blocked for 2 s",
        "reservations survive; batch calls are shed",
        _of("scenario/test_strain", "row_50_a_loop_that_is_blocked_for_2_s_loses_no_lease_and_sheds_batch")
        + _of(REDIS, "what_is_under_way_for_long_stays_held"),
    ),
    Row(
        51,
        "many identical calls at once",
        "one call upstream, where the owner allows it (`[coalesce]`)",
        _of(
            "scenario/test_coalescing",
            "CAC_03_identical_calls_in_flight_are_one_call_upstream",
            "many_that_share_and_leave_at_random_moments",
        ),
        "Calls are alike by what they say; an `Idempotency-Key` is not read.",
    ),
    Row(
        52,
        "200 parallel calls against one unit of a budget",
        "never more than the budget",
        _of("scenario/test_callers", "200_parallel_calls_against_one_remaining_dollar_never_spend_two")
        + _of("stores/test_redis_state_calls", "a_budget_is_one_over_all_gateways_and_never_overspent"),
    ),
)
"""All rows, in order."""


def plays(number: int) -> int:
    """How often row *number* is played: its stories, plain or streamed or both, on memory and on Redis."""
    return 2 * sum(len(each.modes) for each in SCENARIOS if each.row == number)
