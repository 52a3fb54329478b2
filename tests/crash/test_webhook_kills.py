"""SIGKILL while webhooks come in over several connections: what was answered 202 is one run, and nothing is lost.

`PERDURE_WEBHOOK_KILLS` is how many kills there are (3), each amid 50 deliveries.
"""

import asyncio
import os
import random
import signal
import socket
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from perdure.store.reader import LogReader
from perdure.store.records import Query
from tests.crash.nursery import Nursery
from tests.crash.webhook_life import ENTRY, SECRETS, Order
from tests.support.webhooks import standard

KILLS = int(os.environ.get("PERDURE_WEBHOOK_KILLS", "3"))
DELIVERIES = 50 * KILLS
CONNECTIONS = 8
KILLED = -9


@contextmanager
def reserved_port() -> Generator[int]:
    """Yield a port that nobody else is given, and that a server may listen on again and again."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


class Sender:
    """Sends each delivery until it is acknowledged, as senders of webhooks do."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/hook"
        self.left = list(range(DELIVERIES))
        self.accepted: Counter[int] = Counter()
        self.duplicates: Counter[int] = Counter()
        self.failed = 0
        """Requests that were not answered, or not with a yes."""

    @property
    def acknowledged(self) -> int:
        return len(self.accepted | self.duplicates)

    async def send_all(self) -> None:
        await asyncio.gather(*(self._connection() for _ in range(CONNECTIONS)))

    async def _connection(self) -> None:
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
            while self.left:
                number = self.left.pop()
                while not await self._is_acknowledged(client, number):
                    self.failed += 1
                    await asyncio.sleep(0.005)

    async def _is_acknowledged(self, client: httpx2.AsyncClient, number: int) -> bool:
        body = msgspec.json.encode({"n": number})
        try:
            answer = await client.post(
                self._url, content=body, headers=standard(body, f"msg_{number}", secret=SECRETS["HOOK"])
            )
        except httpx2.TransportError:
            return False
        if answer.status_code == 202:
            self.accepted[number] += 1
        elif answer.status_code == 200:
            self.duplicates[number] += 1
        else:
            assert answer.status_code == 503
        return answer.status_code in (200, 202)


async def _kill_again_and_again(nursery: Nursery, order: Order, sender: Sender, delays: random.Random) -> None:
    """Kill life after life, each in the middle of its deliveries, and let the last one end."""
    for kill in range(KILLS):
        pid = await asyncio.to_thread(nursery.begin, order)
        enough = (kill + delays.uniform(0.2, 0.8)) * DELIVERIES / KILLS
        while sender.acknowledged < enough:  # noqa: ASYNC110 - deliveries come from another process's answers
            await asyncio.sleep(0.001)
        await asyncio.sleep(delays.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        assert await asyncio.to_thread(nursery.end) == KILLED
    await asyncio.to_thread(nursery.begin, msgspec.structs.replace(order, finishes=True))


def _rows(log: Path, *types: str) -> list[tuple[str, Any]]:
    with LogReader.open(log) as reader:
        found: list[tuple[str, Any]] = []
        after = 0
        while page := reader.read(Query(types=types, after=after)):
            found += [(event.stream, msgspec.json.decode(event.data or "{}")) for event in page]
            after = page[-1].position
        return found


@pytest.mark.crash
@pytest.mark.row("A3-93", "A3-94")
def test_every_delivery_amid_kills_is_acknowledged_in_the_end_and_is_exactly_one_run(tmp_path: Path) -> None:
    seed = os.environ.get("PERDURE_CRASH_SEED") or str(random.SystemRandom().getrandbits(32))
    sys.stdout.write(f"PERDURE_CRASH_SEED={seed}\n")
    log = tmp_path / "log.db"

    with Nursery("tests.crash.webhook_life") as nursery, reserved_port() as port:
        sender, order = Sender(port), Order(directory=str(tmp_path), port=port)

        async def main() -> None:
            sending = asyncio.create_task(sender.send_all())
            await _kill_again_and_again(nursery, order, sender, random.Random(seed))
            await sending
            (tmp_path / "done").touch()
            assert await asyncio.to_thread(nursery.end) == 0

        asyncio.run(main())

    failed, known = sender.failed, len(sender.duplicates)
    counts = f"{KILLS} kills, {DELIVERIES} deliveries, {failed} requests without a yes, {known} already known"
    sys.stdout.write(counts + "\n")
    recorded = Counter(data["data"]["payload"]["n"] for _, data in _rows(log, "event-published"))
    started = Counter(stream for stream, _ in _rows(log, "run-started"))
    results = {stream: data["result"] for stream, data in _rows(log, "run-completed")}
    assert max(sender.accepted.values()) == 1
    assert recorded == Counter(range(DELIVERIES))
    assert started == Counter(f"run/{ENTRY}:msg_{number}" for number in range(DELIVERIES))
    assert results == {f"run/{ENTRY}:msg_{number}": number for number in range(DELIVERIES)}


@pytest.mark.crash
@pytest.mark.row("A3-94")
def test_a_delivery_that_was_just_answered_202_is_in_the_log_after_a_kill(tmp_path: Path) -> None:
    body = b'{"n": 7}'

    with Nursery("tests.crash.webhook_life") as nursery, reserved_port() as port:
        pid = nursery.begin(Order(directory=str(tmp_path), port=port))

        async def main() -> int:
            async with httpx2.AsyncClient(trust_env=False) as client:
                while True:
                    try:
                        headers = standard(body, "msg_7", secret=SECRETS["HOOK"])
                        answer = await client.post(f"http://127.0.0.1:{port}/hook", content=body, headers=headers)
                    except httpx2.ConnectError:  # it does not listen yet
                        await asyncio.sleep(0.01)
                        continue
                    os.kill(pid, signal.SIGKILL)
                    return answer.status_code

        assert asyncio.run(main()) == 202
        assert nursery.end() == KILLED

    (event,) = [data for _, data in _rows(tmp_path / "log.db", "event-published")]
    assert (event["id"], event["data"]["payload"]) == (f"{ENTRY}:msg_7", {"n": 7})
