"""Many calls at once, some of which fail: all end soon, and the ledger has what is billed."""

from __future__ import annotations

import threading
import time
from decimal import Decimal

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from converse_kit import question

import cachepoint
from cachepoint.emulator import BedrockEmulator, Options, throttled

_A_MINUTE = 60.0


def _all_at_once(threads: int) -> None:
    emulator = BedrockEmulator(options=Options())
    one_attempt = Config(retries={"total_max_attempts": 1}, max_pool_connections=threads)
    client = cachepoint.wrap(emulator.local_client(config=one_attempt))
    emulator.fail_next(throttled(), times=threads // 20)
    unexpected: list[BaseException] = []
    throttles = []

    def call(number: int) -> None:
        try:
            client.converse(**question(number % 7))
        except ClientError as error:
            throttles.append(error)
        except BaseException as error:  # noqa: BLE001 - whatever a thread dies of fails the test
            unexpected.append(error)

    began = time.monotonic()
    calls = [threading.Thread(target=call, args=(number,)) for number in range(threads)]
    for each in calls:
        each.start()
    for each in calls:
        each.join(_A_MINUTE)
    assert not [each for each in calls if each.is_alive()]
    assert time.monotonic() - began < _A_MINUTE
    assert not unexpected
    assert len(throttles) == threads // 20
    totals, bill = client.ledger.totals(), emulator.bill()
    assert (totals.calls, len(bill.lines)) == (threads, threads - threads // 20)
    assert totals.usage == bill.usage
    assert totals.cost.usd == bill.total > Decimal(0)


def test_a_hundred_threads_end_soon_and_the_ledger_has_the_bill() -> None:
    _all_at_once(100)


@pytest.mark.long("a thousand calls take fifteen seconds")
def test_a_thousand_threads_end_within_a_minute_and_the_ledger_has_the_bill() -> None:
    _all_at_once(1_000)
