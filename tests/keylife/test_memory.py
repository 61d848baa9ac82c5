"""Keys in memory: the memory of another process is searched for the keys that it held, while it holds them and afterwards."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import heliosvfs
from heliosvfs import memory
from tests.keylife.examining import KEY

HOLDER = Path(__file__).with_name("holder.py")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/PID/mem")


def regions_of(process: int) -> Iterator[bytes]:
    """Yield the readable regions of a process's memory."""
    with Path(f"/proc/{process}/maps").open() as maps, Path(f"/proc/{process}/mem").open("rb", buffering=0) as content:
        for line in maps:
            region = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if region is None or line.rstrip().endswith(("[vvar]", "[vsyscall]")):
                continue
            start, end = (int(number, 16) for number in region.groups())
            try:
                content.seek(start)
                yield content.read(end - start)
            except (OSError, ValueError, OverflowError):
                continue


def found_in(process: int, keys: dict[str, bytes]) -> dict[str, int]:
    """Count the places where each key, or either half of it, lies in a process's memory."""
    counts = dict.fromkeys(keys, 0)
    for region in regions_of(process):
        for name, key in keys.items():
            counts[name] += region.count(key[:16]) + region.count(key[16:])
    return counts


@contextmanager
def holder(path: Path, scenario: str) -> Iterator[subprocess.Popen[str]]:
    """Start the process that holds keys."""
    with subprocess.Popen(
        [sys.executable, str(HOLDER), str(path), scenario], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        process.stdin.buffer.write(KEY)
        process.stdin.flush()
        try:
            yield process
        finally:
            process.kill()


def told(line: str) -> dict[str, bytes]:
    return {name: bytes(byte ^ 0x5A for byte in bytes.fromhex(digits)) for name, digits in json.loads(line).items()}


@pytest.mark.parametrize("scenario", ["use", "changes", "passphrase"])
def test_after_close_no_master_or_data_key_is_left_in_the_memory_of_the_process(tmp_path: Path, scenario: str) -> None:
    with holder(tmp_path / "db", scenario) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            keys = told(process.stdout.readline())
            assert sum(name.startswith("sub-key") for name in keys) >= 1
            while_open = found_in(process.pid, keys)
            newest = [name for name in keys if name.startswith(("master", "epoch"))][-2:]
            assert all(while_open[name] for name in newest), "the search would find nothing"
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "closed\n"
            left = {name: count for name, count in found_in(process.pid, keys).items() if count}
            assert left == {}
            process.stdin.write("\n")
            process.stdin.flush()


def test_a_process_that_stays_drops_a_data_key_that_another_has_rotated_away(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with holder(path, "stays") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        old = told(process.stdout.readline())
        data = {name: key for name, key in old.items() if name.startswith(("epoch", "sub-key"))}
        assert len(data) >= 2
        assert all(found_in(process.pid, data).values()), "the search would find nothing"
        with closing(heliosvfs.connect(path, key=KEY)) as connection:
            connection.rotate()
        process.stdin.write("\n")
        process.stdin.flush()
        new = {name: key for name, key in told(process.stdout.readline()).items() if name.startswith("epoch")}
        assert not set(new.values()) & set(old.values())
        assert all(found_in(process.pid, new).values())
        assert {name: count for name, count in found_in(process.pid, data).items() if count} == {}
        process.stdin.write("\n")
        process.stdin.flush()


def test_a_buffer_is_zeroed_and_used_again_when_nobody_refers_to_it_and_not_before() -> None:
    key = memory.random_key()
    assert any(key)
    assert len(key) == 32
    cipher = AESGCM(key)
    sealed = cipher.encrypt(bytes(12), b"text", None)
    slot = weakref.ref(key)
    held = [key]
    del key
    gc.collect()
    assert slot() is not None
    assert cipher.decrypt(bytes(12), sealed, None) == b"text"
    held.clear()
    del cipher
    gc.collect()
    assert slot() is None
    assert not any(bytes(place[:]).strip(b"\0") for place in memory._free)


def test_copies_and_random_keys_are_what_they_say() -> None:
    key = memory.random_key()
    copy = memory.copy_of(key)
    assert copy == key
    memory.wipe(key)
    assert not any(key)
    assert any(copy)
    assert len({bytes(memory.random_key()) for _ in range(200)}) == 200


def test_many_buffers_are_apart(tmp_path: Path) -> None:
    assert tmp_path.exists()
    made = [memory.random_key() for _ in range(500)]
    for number, key in enumerate(made):
        key[:] = number.to_bytes(32, "big")
    assert [int.from_bytes(key, "big") for key in made] == list(range(500))


def flags_of_key_memory() -> set[str]:
    """Return the flags (proc(5), VmFlags) of the mapping that a key lies in."""
    key = memory.random_key()
    address = ctypes.addressof(ctypes.c_char.from_buffer(key))
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        region = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if region is not None:
            inside = int(region[1], 16) <= address < int(region[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError("the key lies nowhere")


def test_the_kernel_confirms_what_is_said_of_the_memory_that_keys_lie_in() -> None:
    said, flags = memory.protection(), flags_of_key_memory()
    assert said.locked == ("lo" in flags)
    assert said.not_dumped == ("dd" in flags)
    assert (said.locked and said.not_dumped) or said.why


CORE = """
import ctypes, json, resource
import heliosvfs
from heliosvfs import memory
before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
done = memory.forbid_core_dumps()
print(json.dumps([before, done, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0],
    memory.protection().process_not_dumped]))
"""


def test_a_process_can_forbid_core_dumps_of_itself() -> None:
    done = subprocess.run([sys.executable, "-c", CORE], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [1, True, 0, 0, True]


UNLOCKED = """
import json, os, resource
import heliosvfs
from heliosvfs import memory
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
if os.getuid() == 0:
    os.setuid(65534)  # who may lock whatever the limit
key = memory.random_key()
print(json.dumps([memory.protection().locked, memory.protection().why, any(key)]))
"""


def test_where_memory_can_not_be_locked_it_says_so_and_goes_on() -> None:
    done = subprocess.run([sys.executable, "-c", UNLOCKED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    locked, why, usable = json.loads(done.stdout)
    assert (locked, usable) == (False, True)
    assert any("mlock" in reason for reason in why)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_what_a_forked_child_wipes_stays_in_its_parent() -> None:
    """Shared memory would let a child that ends take the keys of its parent's open databases with it."""
    key = memory.random_key()
    before = bytes(key)
    child = os.fork()
    if child == 0:  # pragma: no cover - the child
        memory.wipe(key)
        os._exit(0 if not any(key) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(key) == before
