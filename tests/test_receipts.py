"""Receipts: short, provable, drawn so that nobody can foresee it."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.errors import RecordError, UsageError
from earmark.records.receipt import Receipt, batch, draw

digests = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(st.lists(digests, min_size=1, max_size=40))
def test_every_receipt_of_a_batch_holds(commitments):
    receipts = batch(commitments)
    assert all(receipt.holds() for receipt in receipts)
    assert len({receipt.inclusion.root for receipt in receipts}) == 1
    assert max(len(receipt.inclusion.path) for receipt in receipts) <= 6


@given(st.lists(digests, min_size=2, max_size=20, unique=True), st.data())
def test_a_receipt_holds_nowhere_else(commitments, data):
    receipts = batch(commitments)
    one = data.draw(st.integers(0, len(receipts) - 1))
    receipt, proof = receipts[one], receipts[one].inclusion
    other = data.draw(st.integers(0, len(receipts) - 1).filter(lambda i: i != one))
    assert not msgspec.structs.replace(receipt, commitment=commitments[other]).holds()
    wrong = [
        {"index": (proof.index + 1) % proof.size},
        {"path": proof.path[:-1]},
        {"path": (*proof.path, "00" * 32)},
        {"root": "00" * 32},
        {"size": 0},
    ]
    for change in wrong:
        assert not msgspec.structs.replace(receipt, inclusion=msgspec.structs.replace(proof, **change)).holds()


def test_a_batch_of_one_is_its_own_leaf():
    (receipt,) = batch(["00" * 32])
    assert receipt.inclusion.path == ()
    assert receipt.inclusion.root == hashlib.sha256(b"\0" + bytes(32)).hexdigest()


def test_tree_equals_the_published_hash_of_two_leaves():
    """RFC 6962: SHA-256(0x01 || SHA-256(0x00 || a) || SHA-256(0x00 || b))."""
    a, b = (hashlib.sha256(b"\0" + bytes([i]) * 32).digest() for i in (1, 2))
    expected = hashlib.sha256(b"\1" + a + b).hexdigest()
    assert batch(["01" * 32, "02" * 32])[0].inclusion.root == expected


@given(digests)
def test_token_is_short_and_survives(commitment):
    receipt = Receipt(commitment=commitment)
    assert len(receipt.token) <= 64
    assert Receipt.from_token(receipt.token) == receipt


@pytest.mark.parametrize("token", ["", "er1-", "er2-" + "A" * 43, "er1-" + "A" * 44, "er1-" + "!" * 43, "x" * 10_000])
def test_other_text_is_no_token(token):
    with pytest.raises(RecordError, match="is no receipt"):
        Receipt.from_token(token)


@given(st.lists(digests, min_size=1, max_size=30, unique=True), st.binary(min_size=16, max_size=40), st.data())
def test_draw_depends_on_seed_and_content_not_on_order(commitments, seed, data):
    count = data.draw(st.integers(0, len(commitments)))
    chosen = {commitments[i] for i in draw(commitments, seed, count)}
    assert len(chosen) == count
    shuffled = data.draw(st.permutations(commitments))
    assert {shuffled[i] for i in draw(shuffled, seed, count)} == chosen


def test_draw_differs_between_seeds():
    commitments = [hashlib.sha256(bytes([i])).hexdigest() for i in range(100)]
    assert draw(commitments, b"seed number one.", 10) != draw(commitments, b"seed number two.", 10)


@pytest.mark.parametrize(("seed", "count", "words"), [(b"short", 1, "can be guessed"), (b"x" * 16, 3, "2 are there")])
def test_impossible_draws_are_refused(seed, count, words):
    with pytest.raises(UsageError, match=words):
        draw(["00" * 32, "11" * 32], seed, count)


def test_an_empty_batch_is_refused():
    with pytest.raises(UsageError, match="empty batch"):
        batch([])
