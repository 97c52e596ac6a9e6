import pytest

from strep.control.errors import (
    AnswerError,
    AuthenticationError,
    CallEndedError,
    NotFoundError,
    RateLimitError,
    ServerError,
    TransportError,
    ValidationError,
)
from strep.control.retries import Retries
from strep.specs import ConfigError


@pytest.mark.parametrize(
    ("failures", "chance", "wait_s"),
    [
        (1, 0.0, 0.125),
        (1, 1.0, 0.25),
        (2, 0.0, 0.25),
        (2, 1.0, 0.5),
        (5, 1.0, 4.0),
        (6, 1.0, 8.0),
        (7, 1.0, 8.0),
        (999, 0.0, 4.0),
    ],
)
def test_wait_doubles_up_to_its_limit_and_is_drawn_from_its_upper_half(failures, chance, wait_s):
    assert Retries(attempts=1000).wait_s(failures, ServerError("down"), chance) == wait_s


def test_what_the_carrier_asks_for_is_added():
    error = RateLimitError("slow down", retry_after_s=7.0)
    assert Retries().wait_s(1, error, 0.0) == 7.125


def test_attempts_are_bounded():
    retries = Retries(attempts=2)
    assert retries.wait_s(1, TransportError("lost"), 0.0) == 0.125
    assert retries.wait_s(2, TransportError("lost"), 0.0) is None


@pytest.mark.parametrize(
    "kind", [AnswerError, AuthenticationError, CallEndedError, NotFoundError, ValidationError]
)
def test_what_would_fail_again_is_not_tried_again(kind):
    assert Retries().wait_s(1, kind("no"), 0.0) is None


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"attempts": 0}, "attempts: 0 is not a whole number from 1"),
        ({"attempt_timeout_s": 0}, "attempt_timeout_s: 0 is not a number above 0"),
        ({"total_timeout_s": -1.0}, "total_timeout_s: -1.0 is not a number above 0"),
        ({"total_timeout_s": float("nan")}, "total_timeout_s: nan is not a number above 0"),
    ],
)
def test_limits_that_allow_no_attempt_are_refused(limits, sentence):
    with pytest.raises(ConfigError) as raised:
        Retries(**limits)
    assert str(raised.value) == sentence
