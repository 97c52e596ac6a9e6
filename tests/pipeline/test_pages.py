"""Memory for blocks that wait: whole, writable, and used again only when nobody looks at it."""

import mmap

import numpy as np
import pytest

from pipeline import pages
from pipeline.pages import LARGE_BYTES, MAX_SPARE, PIECE_BYTES, own_pages


@pytest.fixture(autouse=True)
def no_spare(monkeypatch):
    monkeypatch.setattr(pages, "_spare", type(pages._spare)(maxlen=MAX_SPARE))


def address(array):
    return array.__array_interface__["data"][0]


def is_mapped(array):
    return isinstance(getattr(array.base, "obj", array.base), mmap.mmap)


@pytest.mark.parametrize(
    ("size", "mapped"),
    [(0, False), (1, False), (LARGE_BYTES - 1, False), (LARGE_BYTES, True), (PIECE_BYTES, True),
     (PIECE_BYTES + 1, True), (3 * PIECE_BYTES, True)],
)  # fmt: skip
def test_every_size_is_whole_and_writable(size, mapped):
    room = own_pages(size)
    assert (room.shape, room.dtype) == ((size,), np.uint8)
    assert is_mapped(room) == mapped
    room[:] = 7
    assert (room == 7).all()


def test_pages_are_used_again_after_the_last_view_of_them_is_gone():
    room = own_pages(LARGE_BYTES)
    where, view = address(room), room[100:].view(np.uint8).reshape(4, -1)
    del room
    view[:] = 1
    other = own_pages(LARGE_BYTES)
    other[:] = 2
    assert address(other) != where
    assert (view == 1).all()
    del view
    assert address(own_pages(PIECE_BYTES)) == where


def test_a_few_are_kept_for_the_next_ones_and_the_others_given_back():
    rooms = [own_pages(LARGE_BYTES) for _ in range(MAX_SPARE + 3)]
    assert len(pages._spare) == 0
    del rooms
    assert len(pages._spare) == MAX_SPARE


def test_what_is_larger_than_a_piece_is_given_back_at_once():
    own_pages(PIECE_BYTES + 1)
    assert len(pages._spare) == 0
