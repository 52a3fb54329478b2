"""The hash chain and the Merkle tree, against vectors of others and a naive definition."""

from hashlib import blake2b, sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.store.chain import Frontier, Header, commitment, digest, genesis
from perdure.store.errors import UsageError

# From the reference implementation of RFC 6962, github.com/google/certificate-transparency (merkle_tree_test.cc).
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
HEADER = Header("run/ä", 3, "step-completed", 2, 1_700, None, 'c"1', "run/x#2", None, "[true,null,null]")


def tree(leaves: list[bytes]) -> Frontier:
    frontier = Frontier()
    for leaf in leaves:
        frontier.add(leaf)
    return frontier


def naive_root(leaves: list[bytes]) -> bytes:
    """Return the Merkle tree hash by the words of RFC 6962, section 2.1."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_rfc_6962(size: int) -> None:
    assert tree(LEAVES[:size]).root().hex() == ROOTS[size]


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_the_incremental_root_is_the_naive_one(leaves: list[bytes]) -> None:
    assert tree(leaves).root() == naive_root(leaves)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 300), max_size=3))
def test_it_is_one_tree_however_often_somebody_looks(parts: list[int]) -> None:
    leaves = [number.to_bytes(2) for number in range(sum(parts))]
    looked_at, unseen = Frontier(), tree(leaves)

    for number, leaf in enumerate(leaves, 1):
        looked_at.add(leaf)
        if number in parts:
            assert looked_at.root() == naive_root(leaves[:number])

    assert (looked_at.size, looked_at.nodes) == (unseen.size, unseen.nodes)
    assert unseen.root() == naive_root(leaves)


@given(st.lists(st.binary(max_size=4), max_size=40), st.lists(st.binary(max_size=4), max_size=10))
def test_a_frontier_goes_on_where_it_was_written_down(before: list[bytes], after: list[bytes]) -> None:
    restored = Frontier.decode(tree(before).encode())

    for leaf in after:
        restored.add(leaf)

    assert restored.root() == naive_root(before + after)


def test_a_copy_grows_by_itself() -> None:
    original = tree(LEAVES[:3])

    original.copy().add(b"more")

    assert original.root().hex() == ROOTS[3]


@pytest.mark.parametrize("text", [b"", b"[1]", b"[-1,[]]", b'[1,["zz"]]', b'[1,["00"]]', b"[3,[]]", b"[0]"])
def test_what_is_no_frontier_is_refused(text: bytes) -> None:
    with pytest.raises(UsageError, match="frontier"):
        Frontier.decode(text)


def test_digests_can_be_recomputed_without_perdure() -> None:
    salt, data = bytes(range(16)), b'{"a":1}'

    committed = commitment(salt, data)
    chained = digest(genesis("ab" * 16, "run/ä"), HEADER, committed)

    header = '["run/ä",3,"step-completed",2,1700,null,"c\\"1","run/x#2",null,"[true,null,null]"]'.encode()
    start = blake2b(("ab" * 16 + "run/ä").encode(), digest_size=32).digest()
    expected = blake2b(data, key=salt, digest_size=32).digest()
    assert committed == expected
    assert chained == blake2b(start + header + expected, digest_size=32).digest()


@pytest.mark.parametrize("field", Header._fields)
def test_every_field_of_the_header_is_part_of_the_digest(field: str) -> None:
    changed = tuple("other" if name == field else value for name, value in HEADER._asdict().items())

    assert digest(b"", changed, b"") != digest(b"", HEADER, b"")
