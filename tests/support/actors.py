"""What the tests of the kernel share: a small kind of actor, and a log whose commits a test holds back."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from perdure.actors.kernel.messages import Command, Decision, Effect, Event, Index, Moment
from perdure.actors.kernel.shell import Shell
from perdure.actors.kernel.system import ActorSystem, Interpreter
from perdure.store.batch import Batch
from perdure.store.codec import Codec
from perdure.store.errors import Rejected
from perdure.store.memory import MemoryEventLog, MemoryStorage
from perdure.store.records import StreamId
from perdure.testing import TestClock

ADA, BOB, EVE = (StreamId(f"account/{name}") for name in ("ada", "bob", "eve"))


class Deposited(Event, frozen=True, tag="deposited"):
    amount: int


class Withdrawn(Event, frozen=True, tag="withdrawn"):
    amount: int


class Deposit(Command, frozen=True, tag="deposit"):
    amount: int


class Withdraw(Command, frozen=True, tag="withdraw"):
    amount: int


class GetBalance(Command, frozen=True, tag="get-balance"):
    pass


class Break(Command, frozen=True, tag="break"):
    """Make `decide` raise what is no refusal: a bug."""


class Notify(Command, frozen=True, tag="notify"):
    """Deposit nothing, but cause an effect."""

    text: str


class Send(Effect, frozen=True, tag="send"):
    text: str


class InsufficientFunds(Rejected):
    message = "asked for {asked}, there is {balance}"
    asked: int
    balance: int


class Account(msgspec.Struct, frozen=True):
    balance: int = 0


class AccountBehavior:
    """Deposits and withdrawals; never below zero."""

    kind = "account"
    state_type = Account
    state_version = 1
    events = (Deposited, Withdrawn)

    def initial(self, stream: StreamId) -> Account:
        return Account()

    def decide(self, state: Account, command: Command, moment: Moment) -> Decision[Any]:
        match command:
            case Deposit(amount=amount):
                return Decision((Deposited(amount),), state.balance + amount)
            case Withdraw(amount=amount) if amount > state.balance:
                raise InsufficientFunds(asked=amount, balance=state.balance)
            case Withdraw(amount=amount):
                return Decision((Withdrawn(amount),), state.balance - amount)
            case GetBalance():
                return Decision((), state.balance)
            case Notify(text=text):
                return Decision((Deposited(0),), None, (Send(text),))
            case _:
                raise LookupError("a bug in decide")

    def evolve(self, state: Account, event: Event) -> Account:
        match event:
            case Deposited(amount=amount):
                return Account(state.balance + amount)
            case Withdrawn(amount=amount):
                return Account(state.balance - amount)
            case _:
                raise AssertionError(event)

    def index(self, state: Account) -> Index:
        return Index(is_open=state.balance > 0)


class HeldStorage(MemoryStorage):
    """Commits when a test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, batch: Batch) -> None:
        await self.gate.wait()
        await super().commit(batch)

    def hold(self) -> None:
        self.gate.clear()

    def let_go(self) -> None:
        self.gate.set()


class Bank:
    """An actor system of accounts, with everything that a test looks at."""

    def __init__(self, storage: MemoryStorage, **options: Any) -> None:
        self.storage = storage
        self.clock = TestClock()
        self.sent: list[str] = []
        self.log = MemoryEventLog(storage)
        behavior = options.pop("behavior", AccountBehavior())
        interpreters: Mapping[type[Effect], Interpreter] = {Send: self._send}
        self.system = ActorSystem(self.log, Codec(behavior.events), self.clock, [behavior], interpreters, **options)

    def _send(self, shell: Shell, effect: Send) -> None:
        self.sent.append(effect.text)
        if effect.text == "break":
            raise LookupError("a bug in an effect")

    def ask(self, stream: StreamId, command: Command) -> Any:
        return self.system.ref(stream).ask(command)

    async def balance(self, stream: StreamId) -> int:
        found: int = await self.ask(stream, GetBalance())
        return found


@asynccontextmanager
async def bank(storage: MemoryStorage | None = None, **options: Any) -> AsyncGenerator[Bank]:
    made = Bank(storage or MemoryStorage(), **options)
    try:
        yield made
    finally:
        await made.system.stop()
        await made.log.close()
