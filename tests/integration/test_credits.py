"""Credits on a real Postgres: what is stored, what the database itself refuses, and what survives every feeding."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from math import isnan
from typing import Any

import asyncpg
import orjson
import pytest
from prometheus_client import Gauge

from services.credits import service as credits_service
from services.credits import store
from services.credits.domain import MOVES
from services.credits.service import SPEC, Audit
from shared.events import STRUCTURED_HEADERS, Candidate, Event, InmailStatusChangedV1, ReplyRecordedV1, encode
from shared.postgres import acquire, transaction
from shared.stream.records import Incoming, Position, RawRecord
from shared.testing.builders import (
    after,
    contract_ended,
    contract_started,
    credits_refreshed,
    event,
    preferences_set,
    seat_assigned,
)
from shared.testing.databases import as_service
from shared.testing.harness import Harness
from shared.topics import ACCOUNTING_FACTS, CONTRACT_EVENTS, CREDIT_EVENTS

AnyEvent = Event[Any]

OPENING = (contract_started(), seat_assigned())


def status(name: str, inmail: str = "i", *, contract: str = "contract-1", cost: int = 1, days: float = 0) -> AnyEvent:
    return event(
        InmailStatusChangedV1.model_validate(
            {
                "inmail_id": inmail,
                "thread_id": f"t-{inmail}",
                "thread_version": 1,
                "contract_id": contract,
                "seat_id": "seat-1",
                "candidate": Candidate(id="p", name="Ada"),
                "kind": "initial",
                "automated": False,
                "credit_cost": cost,
                "status": name,
                "at": after(days=days),
            }
        ),
        topic=ACCOUNTING_FACTS,
    )


def reply(inmail: str = "i", *, days: float = 1, contract: str = "contract-1") -> AnyEvent:
    return event(
        ReplyRecordedV1(
            reply_id=f"r-{inmail}-{days}",
            thread_id=f"t-{inmail}",
            thread_version=2,
            inmail_id=inmail,
            contract_id=contract,
            seat_id="seat-1",
            candidate=Candidate(id="p"),
            content="message",
            first_response=True,
            inmail_sent_at=after(),
            sent_at=after(days=days),
        ),
        topic=ACCOUNTING_FACTS,
    )


@pytest.fixture
async def service(database: str) -> AsyncIterator[Harness]:
    harness = await Harness.open(SPEC, as_service(database, "credits"))
    yield harness
    await harness.close()


@pytest.fixture
async def admin(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database, server_settings={"search_path": "credits"})
    yield connection
    await connection.close()


async def ledger(service: Harness) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await service.fetch("SELECT * FROM ledger_entry ORDER BY contract_id, entry_number")]


async def balances(service: Harness, contract: str = "contract-1") -> tuple[int, ...]:
    columns = "granted, available, held, taken, expired"
    (row,) = await service.fetch(f"SELECT {columns} FROM contract WHERE contract_id = $1", contract)  # noqa: S608
    return tuple(row)


def kinds(emitted: list[AnyEvent]) -> list[str]:
    return [getattr(e.data, "kind", None) or e.data.reason for e in emitted]


async def test_lines_are_published_in_their_order_with_the_balances_after_them(service: Harness) -> None:
    await service.feed(CONTRACT_EVENTS, *OPENING)
    facts = [status("scheduled"), status("sent"), reply()]
    await service.feed(ACCOUNTING_FACTS, *facts)
    lines = service.on(CREDIT_EVENTS)
    assert kinds(lines) == ["granted", "held", "captured", "returned"]
    assert [e.data.entry_number for e in lines] == [1, 2, 3, 4]
    assert [(e.data.balance_after.available, e.data.balance_after.held) for e in lines] == [
        (10, 0),
        (9, 1),
        (9, 0),
        (10, 0),
    ]
    for line, cause in zip(lines, [OPENING[0], *facts], strict=True):
        assert line.id == line.data.entry_id
        assert line.causeid == line.data.cause_id == cause.id
        assert line.time == line.data.effective_at == cause.time
        assert line.subject == "contract-1"
    rows = await service.fetch("SELECT entry_id::text, cause_id, effective_at FROM ledger_entry ORDER BY entry_number")
    assert [tuple(row) for row in rows] == [(e.id, e.causeid, e.time) for e in lines]


async def test_two_lines_of_one_cause_have_ids_of_their_own(service: Harness) -> None:
    await service.feed(CONTRACT_EVENTS, *OPENING)
    await service.feed(ACCOUNTING_FACTS, status("scheduled"))
    await service.feed(CONTRACT_EVENTS, contract_ended(at=after(days=1)))
    emitted = await service.feed(ACCOUNTING_FACTS, status("withdrawn"))
    assert kinds(emitted) == ["released", "expired"]
    assert emitted[0].id != emitted[1].id
    assert await balances(service) == (10, 0, 0, 0, 10)


async def test_r24_a_denial_is_published_once(service: Harness) -> None:
    await service.feed(CONTRACT_EVENTS, contract_started(monthly_allotment=0), seat_assigned())
    emitted = await service.feed(ACCOUNTING_FACTS, status("scheduled"), status("scheduled"), status("sent"))
    assert kinds(emitted) == ["INSUFFICIENT_CREDITS", "charged"]
    assert await balances(service) == (0, -1, 0, 1, 0)


async def test_both_topics_in_one_batch_leave_in_the_order_of_their_entry_numbers(service: Harness) -> None:
    def raw(topic: str, offset: int, seconds: float, made: AnyEvent) -> RawRecord:
        at = after(days=40, seconds=seconds)
        return RawRecord(Position(topic, 0, offset), at, made.subject.encode(), encode(made), tuple(STRUCTURED_HEADERS))

    records = [
        raw(CONTRACT_EVENTS, 0, 1, OPENING[0]),
        raw(CONTRACT_EVENTS, 1, 2, OPENING[1]),
        raw(CONTRACT_EVENTS, 2, 4, credits_refreshed(at=after(days=30))),
        raw(ACCOUNTING_FACTS, 0, 0, status("scheduled")),
        raw(ACCOUNTING_FACTS, 1, 3, status("sent")),
        raw(ACCOUNTING_FACTS, 2, 5, reply()),
    ]
    (outcome,) = await service.processor.process(records, service.claims)
    lines = [orjson.loads(payload or b"")["data"] for row in outcome.rows for payload in row.payloads]
    assert [(line["entry_number"], line["kind"]) for line in lines] == [
        (1, "granted"),
        (2, "held"),
        (3, "captured"),
        (4, "granted"),
        (5, "returned"),
    ]


async def test_redelivered_facts_change_nothing_and_are_counted(service: Harness) -> None:
    facts = [status("scheduled"), status("sent"), reply()]
    await service.feed(CONTRACT_EVENTS, *OPENING)
    await service.feed(ACCOUNTING_FACTS, *facts)
    before = await ledger(service), await balances(service)
    assert await service.feed(ACCOUNTING_FACTS, *facts, batch_records=2) == []
    assert (await ledger(service), await balances(service)) == before
    assert [result for _, _, result in service.results].count("duplicate") == len(facts)


@pytest.mark.parametrize("batch_records", [1, 3, 1000])
async def test_the_size_of_batches_does_not_show(service: Harness, batch_records: int) -> None:
    facts = [
        *(status("scheduled", f"i{n}", cost=int(n % 4 > 0)) for n in range(12)),
        *(status("sent" if n % 3 else "cancelled", f"i{n}", cost=int(n % 4 > 0)) for n in range(12)),
        *(reply(f"i{n}", days=80 + n) for n in range(12)),
    ]
    await service.feed(ACCOUNTING_FACTS, *facts, batch_records=batch_records)
    opening = [contract_started(monthly_allotment=5), seat_assigned(), credits_refreshed(at=after(days=30))]
    await service.feed(CONTRACT_EVENTS, *opening, batch_records=batch_records)
    emitted = service.on(CREDIT_EVENTS)
    assert kinds(emitted).count("INSUFFICIENT_CREDITS") == 4
    assert await balances(service) == (10, 9, 0, 1, 0)
    rows = await service.fetch("SELECT entry_id::text, kind, entry_number FROM ledger_entry ORDER BY entry_number")
    lines = [e for e in emitted if hasattr(e.data, "entry_id")]
    assert [tuple(row) for row in rows] == [(e.id, e.data.kind, e.data.entry_number) for e in lines]
    assert await audit(service) == {}


async def test_r21_what_waits_for_the_contract_then_waits_for_the_seat(service: Harness) -> None:
    await service.feed(ACCOUNTING_FACTS, status("scheduled"))
    await service.feed(CONTRACT_EVENTS, contract_ended(at=after(days=3), contract_id="other"))
    assert kinds(await service.feed(CONTRACT_EVENTS, contract_started())) == ["granted"]
    (parked,) = await service.fetch("SELECT wait_key FROM parked WHERE topic = $1", ACCOUNTING_FACTS)
    assert parked["wait_key"] == "seat:10:contract-1:seat-1"
    await service.feed(ACCOUNTING_FACTS, status("sent"))
    assert kinds(await service.feed(CONTRACT_EVENTS, seat_assigned())) == ["held", "captured"]
    assert await service.fetch("SELECT FROM parked WHERE topic = $1", ACCOUNTING_FACTS) == []


async def test_r21_a_seat_that_comes_before_its_contract_is_known_then(service: Harness) -> None:
    await service.feed(CONTRACT_EVENTS, seat_assigned(monthly_limit=3))
    await service.feed(ACCOUNTING_FACTS, status("scheduled"))
    assert kinds(await service.feed(CONTRACT_EVENTS, contract_started())) == ["granted", "held"]
    assert [row[0] for row in await service.fetch("SELECT monthly_limit FROM seat")] == [3]


async def test_r21_a_fact_whose_contract_never_comes_is_orphaned(service: Harness) -> None:
    await service.feed(ACCOUNTING_FACTS, status("scheduled"), timestamp=after())
    await service.expire(after(hours=24))
    assert await service.dead_reasons(ACCOUNTING_FACTS) == ["ORPHANED"]
    assert await service.dead_reasons() == ["ORPHANED"]
    assert await service.fetch("SELECT FROM parked") == []


async def test_bad_contract_events_are_dead_letters_of_credits(service: Harness) -> None:
    await service.feed_raw(CONTRACT_EVENTS, [(b"contract-1", b"{}"), (b"contract-1", None)])
    assert [d.reason for d in service.dead] == ["INVALID_EVENT", "INVALID_JSON"]


async def test_preferences_are_read_and_leave_no_trace(service: Harness) -> None:
    assert await service.feed(CONTRACT_EVENTS, preferences_set()) == []
    assert service.dead == []


async def test_a_fact_of_another_contract_than_its_inmails_is_a_dead_letter(service: Harness) -> None:
    other = [contract_started(contract_id="other"), seat_assigned(contract_id="other")]
    await service.feed(ACCOUNTING_FACTS, status("sent", contract="other"))  # it waits
    await service.feed(CONTRACT_EVENTS, *OPENING)
    await service.feed(ACCOUNTING_FACTS, status("scheduled"))
    await service.feed(CONTRACT_EVENTS, *other)
    assert [(d.reason, d.detail.split(":")[0]) for d in service.dead] == [("INVALID_EVENT", "data.contract_id")]
    assert await service.fetch("SELECT FROM parked") == []
    assert await balances(service) == (10, 9, 1, 0, 0)


@pytest.mark.parametrize(
    "change",
    ["UPDATE ledger_entry SET amount = 2", "DELETE FROM ledger_entry", "TRUNCATE ledger_entry"],
)
async def test_the_ledger_is_append_only_even_for_the_administrator(
    service: Harness, admin: asyncpg.Connection, change: str
) -> None:
    await service.feed(CONTRACT_EVENTS, *OPENING)
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await admin.execute(change)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("held", "held"),
        ("captured", "charged"),
        ("charged", "captured"),
        ("refunded", "returned"),
        ("returned", "returned"),
    ],
)
async def test_the_database_refuses_a_second_line_of_a_step(admin: asyncpg.Connection, first: str, second: str) -> None:
    insert = """
        INSERT INTO ledger_entry (contract_id, entry_number, entry_id, kind, amount, inmail_id, seat_id,
                                  available_after, held_after, cause_id, effective_at)
        VALUES ('c', $1, gen_random_uuid(), $2, 1, 'i', 's', 0, 0, 'e', now())
    """
    await admin.execute(insert, 1, first)
    with pytest.raises(asyncpg.UniqueViolationError, match="ledger_entry_inmail_step"):
        await admin.execute(insert, 2, second)


async def test_the_database_refuses_books_that_do_not_balance(service: Harness) -> None:
    await service.feed(CONTRACT_EVENTS, *OPENING)
    with pytest.raises(asyncpg.CheckViolationError, match="contract_books_balance"):
        await service.resources.pool.execute("UPDATE contract SET available = available + 1")


async def test_every_kind_is_posted_as_the_rules_move_it_and_sums_to_zero(admin: asyncpg.Connection) -> None:
    accounts = ("granted", "available", "held", "taken", "expired")
    for number, kind in enumerate(MOVES, start=1):
        inmail = None if kind in {"granted", "expired"} else f"i{number}"
        await admin.execute(
            """
            INSERT INTO ledger_entry (contract_id, entry_number, entry_id, kind, amount, inmail_id, seat_id,
                                      available_after, held_after, cause_id, effective_at)
            VALUES ('c', $1, gen_random_uuid(), $2, 3, $3, $3, 0, 0, 'e', now())
            """,
            number,
            kind,
            inmail,
        )
    for number, (granted, *others) in enumerate(MOVES.values(), start=1):
        rows = await admin.fetch("SELECT account, amount FROM posting WHERE entry_number = $1", number)
        amounts = {row["account"]: row["amount"] for row in rows}
        assert sum(amounts.values()) == 0
        assert [amounts.get(account, 0) for account in accounts] == [3 * move for move in (-granted, *others)]


async def audit(service: Harness) -> dict[str, int]:
    """Look at all contracts."""
    pool = service.resources.pool
    return await store.audit(pool, await store.contract_ids(pool, after="", limit=1_000))


async def test_the_audit_finds_a_balance_that_the_ledger_does_not_explain(service: Harness) -> None:
    await service.feed(CONTRACT_EVENTS, *OPENING)
    await service.feed(ACCOUNTING_FACTS, status("scheduled"), status("sent"), status("scheduled", "j"))
    pool = service.resources.pool
    assert await audit(service) == {}
    assert [row[0] for row in await pool.fetch("SELECT entry_number FROM audited")] == [4]
    await service.feed(ACCOUNTING_FACTS, reply())
    await pool.execute("UPDATE contract SET available = available + 2, held = held - 1, granted = granted + 1")
    for _ in range(2):  # what disagrees is not remembered as right
        assert await audit(service) == {"contract-1": 4}
    await pool.execute("UPDATE contract SET available = available - 2, held = held + 1, granted = granted - 1")
    assert await audit(service) == {}
    assert [row[0] for row in await pool.fetch("SELECT entry_number FROM audited")] == [5]


async def test_the_audit_sets_its_gauge(service: Harness, admin: asyncpg.Connection) -> None:
    """A contract with balances and no lines: 3 credits too many are granted, and 3 too many available."""
    await admin.execute("INSERT INTO contract VALUES ('stray', 3, 4, now(), NULL, 0, 3, 3, 0, 0, 0)")
    await service.feed(CONTRACT_EVENTS, *OPENING)
    assert service.resources.metrics.registry.get_sample_value("inmail_ledger_imbalance_credits") == 6


_STRAY = "INSERT INTO contract VALUES ($1, 3, 4, now(), NULL, $2, $3, $3, 0, 0, 0)"
_GRANT = """
    INSERT INTO ledger_entry (contract_id, entry_number, entry_id, kind, amount, inmail_id, seat_id,
                              available_after, held_after, cause_id, effective_at)
    VALUES ($1, $2, gen_random_uuid(), 'granted', 3, NULL, NULL, 0, 0, 'e', now())
"""


async def test_the_audit_finds_numbers_without_lines_and_lines_beyond_the_last_where_the_sums_agree(
    service: Harness, admin: asyncpg.Connection
) -> None:
    await admin.execute(_STRAY, "gap", 4, 6)
    await admin.execute(_STRAY, "shifted", 2, 6)
    await admin.execute(_STRAY, "right", 2, 6)
    lines = [("gap", 1), ("gap", 4), ("shifted", 1), ("shifted", 3), ("right", 1), ("right", 2)]
    await admin.executemany(_GRANT, lines)
    for _ in range(2):
        assert await audit(service) == {"gap": 2, "shifted": 1}


async def gauge_after_audit(auditor: Audit, gauge: Gauge) -> float:
    await auditor.run_if_due()
    (sample,) = next(iter(gauge.collect())).samples
    return sample.value


@pytest.fixture
def gauge(monkeypatch: pytest.MonkeyPatch) -> Gauge:
    """For audits that are always due and look at one contract at a time."""
    monkeypatch.setattr(credits_service, "AUDIT_SECONDS_MIN", 0)
    monkeypatch.setattr(credits_service, "AUDIT_CONTRACTS_MAX", 1)
    return Gauge("imbalance", "", registry=None)


async def test_an_audit_looks_at_so_many_in_turn_and_forgets_none_that_differs(
    service: Harness, admin: asyncpg.Connection, gauge: Gauge
) -> None:
    for contract, surplus in (("a", 0), ("b", 3), ("c", 0), ("d", 5)):
        await admin.execute(_STRAY, contract, 0, surplus)
    auditor = Audit(service.resources.pool, gauge)
    assert [await gauge_after_audit(auditor, gauge) for _ in range(5)] == [0, 6, 6, 16, 16]
    await admin.execute("UPDATE contract SET granted = 0, available = 0")
    assert [await gauge_after_audit(auditor, gauge) for _ in range(2)] == [6, 0]


async def test_an_audit_looks_first_at_what_changed(service: Harness, admin: asyncpg.Connection, gauge: Gauge) -> None:
    for contract, surplus in (("a", 0), ("b", 0), ("c", 4), ("d", 1)):
        await admin.execute(_STRAY, contract, 0, surplus)
    auditor = Audit(service.resources.pool, gauge)
    auditor.note(["d"])
    auditor.note(["c"])  # one too many: it comes in turn
    assert await gauge_after_audit(auditor, gauge) == 2


async def test_what_was_not_audited_is_not_called_right(
    service: Harness, admin: asyncpg.Connection, gauge: Gauge
) -> None:
    auditor = Audit(service.resources.pool, gauge)
    await admin.execute(_STRAY, "a", 0, 1)
    await admin.execute("ALTER TABLE audited RENAME TO away")
    auditor.note(["a"])
    assert isnan(await gauge_after_audit(auditor, gauge))
    await admin.execute("ALTER TABLE away RENAME TO audited")
    assert await gauge_after_audit(auditor, gauge) == 2
    await admin.execute("ALTER TABLE audited RENAME TO away")
    assert await gauge_after_audit(auditor, gauge) == 2, "what differs is not forgotten either"


async def test_a_new_process_looks_first_at_what_the_one_before_found_wrong(
    service: Harness, admin: asyncpg.Connection, gauge: Gauge
) -> None:
    for contract, surplus in (("a", 0), ("b", 0), ("c", 4)):
        await admin.execute(_STRAY, contract, 0, surplus)
    assert await audit(service) == {"c": 8}
    assert await gauge_after_audit(Audit(service.resources.pool, gauge), gauge) == 8


async def test_what_changes_during_an_audit_is_for_the_next(
    service: Harness, admin: asyncpg.Connection, gauge: Gauge, monkeypatch: pytest.MonkeyPatch
) -> None:
    for contract in ("a", "b"):
        await admin.execute(_STRAY, contract, 0, 0)
    assert await audit(service) == {}
    auditor, audit_now = Audit(service.resources.pool, gauge), store.audit

    async def meanwhile(*looked_at: Any) -> dict[str, int]:
        found = await audit_now(*looked_at)
        await admin.execute("UPDATE contract SET granted = 1, available = 1 WHERE contract_id = 'a'")
        auditor.note(["a"])
        return found

    auditor.note(["a"])
    monkeypatch.setattr(store, "audit", meanwhile)
    assert await gauge_after_audit(auditor, gauge) == 0
    assert await gauge_after_audit(auditor, gauge) == 2


async def test_a_batch_has_its_contracts_audited(service: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []
    monkeypatch.setattr(Audit, "note", lambda _, contract_ids: noted.extend(contract_ids))
    await service.feed(CONTRACT_EVENTS, *OPENING)
    assert noted == ["contract-1"]


def incoming(made: AnyEvent) -> Incoming[Any]:
    return Incoming(Position(ACCOUNTING_FACTS, 0, 0), datetime.now(UTC), made, made.subject.encode(), b"", ())


async def test_whoever_moves_a_contracts_credits_holds_its_row(service: Harness) -> None:
    await service.feed(CONTRACT_EVENTS, *OPENING)
    pool = service.resources.pool
    async with acquire(pool) as other, transaction(pool) as one:
        await store.load(one, [incoming(status("sent"))])
        await other.execute("SET lock_timeout = 1")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await store.load(other, [incoming(status("sent", "j"))])


async def test_an_inmail_that_another_contract_takes_meanwhile_is_not_taken_over(service: Harness) -> None:
    await service.feed(CONTRACT_EVENTS, *OPENING)
    await service.feed(CONTRACT_EVENTS, contract_started(contract_id="other"), seat_assigned(contract_id="other"))
    pool = service.resources.pool
    made = incoming(status("scheduled", contract="other"))
    async with transaction(pool) as slow:
        book = await store.load(slow, [made])
        book.take([made])
        await service.feed(ACCOUNTING_FACTS, status("scheduled"))
        with pytest.raises(store.ContractMismatchError):
            await store.save(slow, book, [])


async def test_a_batch_costs_a_fixed_number_of_statements(service: Harness, admin: asyncpg.Connection) -> None:
    """However many records and contracts: no statement is sent for a single one of them."""
    counts = []
    for size in (2, 1, 40):  # the first one also asks the database about types
        opening = [
            e
            for n in range(size)
            for e in (
                contract_started(contract_id=f"c{size}-{n}", at=after() + timedelta(days=n)),
                seat_assigned(contract_id=f"c{size}-{n}"),
            )
        ]
        facts = [status("scheduled", f"i{size}-{n}", contract=f"c{size}-{n}") for n in range(size)]
        records = [incoming(e) for e in (*opening, *facts)]
        async with transaction(service.resources.pool) as connection:
            sent: list[object] = []
            connection.add_query_logger(sent.append)
            book = await store.load(connection, records)
            book.take(records)
            posted = [
                (line, store.Posted(f"{n:032x}", "e", after())) for n, line in enumerate(book.entries, 1000 * size)
            ]
            await store.save(connection, book, posted)
            connection.remove_query_logger(sent.append)
        counts.append(len(sent))
    assert counts[1] == counts[2]
