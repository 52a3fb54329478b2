"""The owner's lock, between objects, processes and forks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perdure.store.errors import LogUnavailableError, StoreLockedError
from perdure.store.lock import LockState, Owner, OwnerLock, lock_path, look

HOLD = """
import sys
from pathlib import Path
from perdure.store.lock import OwnerLock
lock = OwnerLock.acquire(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def holder(database: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_taken_once_and_again_after_its_release(database: Path) -> None:
    first = OwnerLock.acquire(database)
    with pytest.raises(StoreLockedError) as caught:
        OwnerLock.acquire(database)
    first.release()
    first.release()
    second = OwnerLock.acquire(database)
    second.release()

    assert caught.value.pid == os.getpid()
    assert f"process {os.getpid()}" in str(caught.value)


def test_another_process_that_holds_the_lock_is_named_and_its_death_frees_it(database: Path) -> None:
    with holder(database) as process:
        with pytest.raises(StoreLockedError) as caught:
            OwnerLock.acquire(database)
        seen = look(database)
        process.kill()
        process.wait()
        after = look(database)
        lock = OwnerLock.acquire(database)
        lock.release()

    assert caught.value.pid == process.pid
    assert seen.is_held
    assert seen.owner is not None
    assert seen.owner.pid == process.pid
    assert not after.is_held
    assert after.owner == seen.owner
    assert not seen.owner.is_alive


def test_a_forked_child_does_not_keep_the_lock(database: Path) -> None:
    read, write = os.pipe()
    lock = OwnerLock.acquire(database)
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # lives until its parent has finished
        os._exit(0)
    try:
        with pytest.raises(StoreLockedError):
            OwnerLock.acquire(database)
        lock.release()
        again = OwnerLock.acquire(database)
        again.release()
    finally:
        os.close(write)
        os.close(read)
        os.waitpid(child, 0)


def test_a_started_program_does_not_inherit_the_lock(database: Path) -> None:
    lock = OwnerLock.acquire(database)
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, close_fds=False) as program:
        lock.release()
        again = OwnerLock.acquire(database)
        again.release()
        program.kill()


def test_an_object_that_is_lost_gives_its_lock_up(database: Path) -> None:
    lock = OwnerLock.acquire(database)

    del lock

    OwnerLock.acquire(database).release()


def test_an_onlooker_takes_and_makes_nothing(database: Path) -> None:
    nobody = look(database)
    lock = OwnerLock.acquire(database)
    held = look(database)
    lock.release()

    assert nobody == LockState(is_held=False, owner=None)
    assert held.is_held
    assert held.owner is not None
    assert held.owner.is_alive
    assert look(database) == LockState(is_held=False, owner=None)


@pytest.mark.parametrize("text", [b"", b"rubbish\xff", b'{"pid":1}'])
def test_the_text_in_the_file_decides_nothing(database: Path, text: bytes) -> None:
    lock_path(database).write_bytes(text)

    OwnerLock.acquire(database).release()


def test_a_pid_that_another_process_has_now_is_not_the_owner() -> None:
    impostor = Owner(pid=os.getpid(), started=1, host=os.uname().nodename)

    assert not impostor.is_alive


def test_a_folder_without_room_for_a_lock_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailableError, match="lock"):
        OwnerLock.acquire(tmp_path / "no" / "log.db")
