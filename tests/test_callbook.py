from __future__ import annotations

from uuid import UUID

from strep.callbook import CallBook

CALL = UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
OTHER = UUID("2dc6fc34-f9e0-11ea-b68e-02420a0f7768")
EARLIER = {"A": [{"recording": "a.wav"}]}


def test_nothing_is_known_of_a_leg_that_nobody_told_of():
    book = CallBook()
    book.opened(CALL)
    assert book.facts(CALL) is None
    assert book.earlier(CALL, "A") == ()
    book.closed(CALL)
    assert len(book) == 0


def test_newer_facts_replace_older_ones():
    book = CallBook()
    book.announce(CALL, {"state": "initiated", "from": "+1"})
    book.announce(CALL, {"state": "answered"})
    assert book.facts(CALL) == {"state": "answered"}
    assert book.facts(OTHER) is None


def test_facts_of_a_forgotten_leg_stay_until_its_last_track_is_closed():
    book = CallBook()
    book.announce(CALL, {"state": "hangup"})
    book.opened(CALL)
    book.opened(CALL)
    book.forget(CALL)
    book.closed(CALL)
    assert book.facts(CALL) == {"state": "hangup"}
    book.closed(CALL)
    assert (book.facts(CALL), len(book)) == (None, 0)


def test_announced_leg_stays_without_tracks_until_it_is_forgotten():
    book = CallBook()
    book.announce(CALL, {"state": "answered"})
    book.opened(CALL)
    book.closed(CALL)
    assert book.facts(CALL) == {"state": "answered"}
    book.forget(CALL)
    book.forget(CALL)
    assert len(book) == 0


def test_earlier_recordings_are_kept_by_leg_while_there_are_tracks():
    book = CallBook()
    book.remind(CALL, EARLIER)
    assert len(book) == 0
    book.opened(CALL)
    book.remind(CALL, EARLIER)
    assert book.earlier(CALL, "A") == [{"recording": "a.wav"}]
    assert book.earlier(CALL, "B") == ()
    assert book.facts(CALL) is None
    book.closed(CALL)
    assert book.earlier(CALL, "A") == ()
