import pytest
from commandmaker import make
from hypothesis import given
from hypothesis import strategies as st

from strep.control.commands import Base64, Hangup, PlaybackStart, parse_target, target_text
from strep.control.errors import ParameterError
from strep.specs import Address

INT32 = "a whole number from 0 to 2147483647"
POSITIVE = "a whole number from 1 to 2147483647"
WEB = "a URL that begins with http:// or https://"
SOCKET = "a URL that begins with ws:// or wss://"
DIGIT = "a DTMF digit, one of 0123456789#*ABCD"
DIGITS = "a text of DTMF digits, each one of 0123456789#*ABCD"


@pytest.mark.parametrize(
    ("name", "parameter", "value", "sentence"),
    [
        # dial
        (
            "dial",
            "answering_machine_detection",
            "premium",
            "'premium' is not detect, detect_beep, detect_words, greeting_end or disabled",
        ),
        (
            "dial",
            "answering_machine_detection_config",
            "fast",
            "'fast' is not a table of keys and values",
        ),
        ("dial", "audio_url", "ftp://example.com/a.wav", f"'ftp://example.com/a.wav' is not {WEB}"),
        ("dial", "audio_url", "http://", f"'http://' is not {WEB}"),
        ("dial", "audio_url", "http://a b/", f"'http://a b/' is not {WEB}"),
        ("dial", "audio_url", "http://a:99999/", f"'http://a:99999/' is not {WEB}"),
        (
            "dial",
            "billing_group_id",
            "7",
            "'7' is not a UUID, such as 0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
        ),
        ("dial", "client_state", 7, "7 is not a text or bytes"),
        ("dial", "client_state", Base64("a=b"), "'a=b' is not Base64"),
        ("dial", "command_id", "", "'' is not a text of one character or more"),
        ("dial", "custom_headers", "X-A: 1", "'X-A: 1' is not a list of tables"),
        ("dial", "custom_headers", [5], "5 is not a table of keys and values"),
        ("dial", "dialogflow_config", [], "[] is not a table of keys and values"),
        ("dial", "enable_dialogflow", 1, "1 is not true or false"),
        (
            "dial",
            "from_display_name",
            "Acme & Co",
            "'Acme & Co' holds more than letters, numbers, spaces and -_~!.+",
        ),
        (
            "dial",
            "from_display_name",
            "x" * 129,
            "the name has 129 characters, 128 are allowed",
        ),
        ("dial", "link_to", 5, "5 is not a text"),
        ("dial", "media_name", "", "'' is not a text of one character or more"),
        ("dial", "preferred_codecs", "", "'' is not a text of one character or more"),
        ("dial", "record", "yes", "'yes' is not record-from-answer, the only value there is"),
        ("dial", "record_channels", "both", "'both' is not single or dual"),
        ("dial", "record_format", "ogg", "'ogg' is not wav or mp3"),
        ("dial", "record_max_length", -1, "-1 is not a whole number from 0 to 43200"),
        ("dial", "record_max_length", 43201, "43201 is not a whole number from 0 to 43200"),
        ("dial", "record_timeout_secs", -1, f"-1 is not {INT32}"),
        ("dial", "record_timeout_secs", 2**31, f"2147483648 is not {INT32}"),
        ("dial", "sip_auth_password", "", "the value is not a text of one character or more"),
        ("dial", "sip_auth_username", "", "'' is not a text of one character or more"),
        ("dial", "sip_headers", "UUI", "'UUI' is not a list of tables"),
        ("dial", "sound_modifications", "deep", "'deep' is not a table of keys and values"),
        (
            "dial",
            "stream_track",
            "inbound",
            "'inbound' is not inbound_track, outbound_track or both_tracks",
        ),
        ("dial", "stream_url", "https://a/", f"'https://a/' is not {SOCKET}"),
        ("dial", "send_silence_when_idle", "yes", "'yes' is not true or false"),
        ("dial", "time_limit_secs", 29, "29 is not a whole number from 30 to 14400"),
        ("dial", "time_limit_secs", 14401, "14401 is not a whole number from 30 to 14400"),
        ("dial", "timeout_secs", 4, "4 is not a whole number from 5 to 120"),
        ("dial", "timeout_secs", 121, "121 is not a whole number from 5 to 120"),
        ("dial", "timeout_secs", 5.5, "5.5 is not a whole number from 5 to 120"),
        ("dial", "timeout_secs", True, "True is not a whole number from 5 to 120"),
        ("dial", "webhook_url", "example.com", f"'example.com' is not {WEB}"),
        ("dial", "webhook_url_method", "PUT", "'PUT' is not POST or GET"),
        # answer
        (
            "answer",
            "billing_group_id",
            7,
            "7 is not a UUID, such as 0ccc7b54-4df3-4bca-a65a-3da1ecc777f0",
        ),
        ("answer", "client_state", Base64("!"), "'!' is not Base64"),
        ("answer", "command_id", 7, "7 is not a text"),
        ("answer", "custom_headers", {}, "{} is not a list of tables"),
        ("answer", "sip_headers", {}, "{} is not a list of tables"),
        ("answer", "sound_modifications", 1, "1 is not a table of keys and values"),
        (
            "answer",
            "stream_track",
            "none",
            "'none' is not inbound_track, outbound_track or both_tracks",
        ),
        ("answer", "stream_url", "ws:", f"'ws:' is not {SOCKET}"),
        ("answer", "send_silence_when_idle", 0, "0 is not true or false"),
        ("answer", "webhook_url", 0, f"0 is not {WEB}"),
        ("answer", "webhook_url_method", "DELETE", "'DELETE' is not POST or GET"),
        # bridge
        ("bridge", "client_state", 1.5, "1.5 is not a text or bytes"),
        ("bridge", "command_id", [], "[] is not a text"),
        (
            "bridge",
            "park_after_unbridge",
            "opposite",
            "'opposite' is not self, the only value there is",
        ),
        # enqueue
        ("enqueue", "max_size", 0, f"0 is not {POSITIVE}"),
        ("enqueue", "max_size", "many", f"'many' is not {POSITIVE}"),
        ("enqueue", "max_wait_time_secs", -1, f"-1 is not {INT32}"),
        ("enqueue", "queue_name", "", "'' is not a text of one character or more"),
        # fork_stop
        ("fork_stop", "stream_type", "cooked", "'cooked' is not raw or decrypted"),
        # gather
        ("gather", "initial_timeout_millis", -1, f"-1 is not {INT32}"),
        ("gather", "inter_digit_timeout_millis", 2**31, f"2147483648 is not {INT32}"),
        ("gather", "maximum_digits", 0, "0 is not a whole number from 1 to 128"),
        ("gather", "maximum_digits", 129, "129 is not a whole number from 1 to 128"),
        ("gather", "minimum_digits", 0, "0 is not a whole number from 1 to 128"),
        ("gather", "terminating_digit", "##", f"'##' is not {DIGIT}"),
        ("gather", "terminating_digit", "x", f"'x' is not {DIGIT}"),
        ("gather", "timeout_millis", "1 s", f"'1 s' is not {INT32}"),
        ("gather", "valid_digits", "", f"'' is not {DIGITS}"),
        ("gather", "valid_digits", "12-3", f"'12-3' is not {DIGITS}"),
        # gather_using_audio
        ("gather_using_audio", "audio_url", "a.wav", f"'a.wav' is not {WEB}"),
        ("gather_using_audio", "inter_digit_timeout_millis", -1, f"-1 is not {INT32}"),
        ("gather_using_audio", "invalid_audio_url", "a.wav", f"'a.wav' is not {WEB}"),
        ("gather_using_audio", "invalid_media_name", 1, "1 is not a text"),
        ("gather_using_audio", "maximum_digits", 129, "129 is not a whole number from 1 to 128"),
        ("gather_using_audio", "maximum_tries", 0, f"0 is not {POSITIVE}"),
        ("gather_using_audio", "media_name", 1, "1 is not a text"),
        ("gather_using_audio", "minimum_digits", 0, "0 is not a whole number from 1 to 128"),
        ("gather_using_audio", "terminating_digit", "", f"'' is not {DIGIT}"),
        ("gather_using_audio", "timeout_millis", -1, f"-1 is not {INT32}"),
        ("gather_using_audio", "valid_digits", 123, f"123 is not {DIGITS}"),
        # gather_using_speak
        ("gather_using_speak", "inter_digit_timeout_millis", -1, f"-1 is not {INT32}"),
        (
            "gather_using_speak",
            "invalid_payload",
            "x" * 3001,
            "the text has 3001 characters, 3000 are allowed",
        ),
        ("gather_using_speak", "maximum_digits", 129, "129 is not a whole number from 1 to 128"),
        ("gather_using_speak", "maximum_tries", 0, f"0 is not {POSITIVE}"),
        ("gather_using_speak", "minimum_digits", 0, "0 is not a whole number from 1 to 128"),
        ("gather_using_speak", "payload_type", "html", "'html' is not text or ssml"),
        ("gather_using_speak", "service_level", "gold", "'gold' is not basic or premium"),
        ("gather_using_speak", "terminating_digit", 1, f"1 is not {DIGIT}"),
        ("gather_using_speak", "timeout_millis", -1, f"-1 is not {INT32}"),
        ("gather_using_speak", "valid_digits", "abc", f"'abc' is not {DIGITS}"),
        # playback_start
        ("playback_start", "audio_url", "a.wav", f"'a.wav' is not {WEB}"),
        ("playback_start", "cache_audio", "no", "'no' is not true or false"),
        ("playback_start", "loop", 0, "0 is not a whole number from 1 nor infinity"),
        ("playback_start", "loop", True, "True is not a whole number from 1 nor infinity"),
        ("playback_start", "loop", "twice", "'twice' is not a whole number from 1 nor infinity"),
        ("playback_start", "media_name", 1, "1 is not a text"),
        ("playback_start", "overlay", 2, "2 is not true or false"),
        ("playback_start", "playback_content", "an mp3", "'an mp3' is not Base64"),
        ("playback_start", "stop", "none", "'none' is not current or all"),
        ("playback_start", "target_legs", "A", "'A' is not self, opposite or both"),
        # playback_stop
        ("playback_stop", "overlay", "on", "'on' is not true or false"),
        ("playback_stop", "stop", "next", "'next' is not current or all"),
        # those with nothing of their own
        ("gather_stop", "client_state", 1, "1 is not a text or bytes"),
        ("gather_stop", "command_id", 1, "1 is not a text"),
        ("hangup", "client_state", 1, "1 is not a text or bytes"),
        ("hangup", "command_id", 1, "1 is not a text"),
        ("leave_queue", "client_state", 1, "1 is not a text or bytes"),
        ("leave_queue", "command_id", 1, "1 is not a text"),
        ("record_pause", "client_state", 1, "1 is not a text or bytes"),
        ("record_pause", "command_id", 1, "1 is not a text"),
        ("record_resume", "client_state", 1, "1 is not a text or bytes"),
        ("record_resume", "command_id", 1, "1 is not a text"),
    ],
)
def test_wrong_value_is_refused_in_one_sentence(name, parameter, value, sentence):
    with pytest.raises(ParameterError) as raised:
        make(name, **{parameter: value})
    assert str(raised.value) == f"{name}: {parameter}: {sentence}"
    assert (raised.value.command, raised.value.parameter) == (name, parameter)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("dial", {"timeout_secs": 5, "time_limit_secs": 30, "record_max_length": 0}),
        ("dial", {"timeout_secs": 120, "time_limit_secs": 14400, "record_max_length": 43200}),
        ("dial", {"from_display_name": "Acme-_~!.+ 7 Ä"}),
        ("dial", {"from_display_name": "x" * 128}),
        ("dial", {"stream_url": "wss://example.com/media?x=1"}),
        ("dial", {"record": "record-from-answer", "record_channels": "single"}),
        ("gather", {"minimum_digits": 128, "maximum_digits": 128}),
        ("gather", {"terminating_digit": "D", "valid_digits": "ABCD"}),
        ("gather_using_speak", {"service_level": "basic"}),
        ("gather_using_speak", {"invalid_payload": "x" * 3000}),
        ("playback_start", {"loop": 3, "overlay": True}),
        ("playback_start", {"target_legs": "opposite"}),
        ("answer", {"sound_modifications": {"pitch": 0.5, "semitone": -14, "track": "inbound"}}),
    ],
)
def test_values_at_the_limits_are_sent(name, parameters):
    assert make(name, **parameters).body().items() >= parameters.items()


@pytest.mark.parametrize(
    ("name", "given", "sent"),
    [
        ("dial", {"timeout_secs": "60"}, {"timeout_secs": 60}),
        ("dial", {"enable_dialogflow": "True"}, {"enable_dialogflow": True}),
        ("dial", {"record_format": "WAV"}, {"record_format": "wav"}),
        ("playback_start", {"loop": "3"}, {"loop": 3}),
    ],
)
def test_values_as_typed_on_a_command_line_are_converted(name, given, sent):
    assert make(name, **given).body().items() >= sent.items()


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("ticket 17", "dGlja2V0IDE3"),
        (b"\x00\xff", "AP8="),
        ("Grüße", "R3LDvMOfZQ=="),
        ("", ""),
        ("dGlja2V0IDE3", "ZEdsamEyVjBJREUz"),  # a text that happens to be Base64 is a text
        (Base64("dGlja2V0IDE3"), "dGlja2V0IDE3"),
    ],
)
def test_client_state_is_encoded_unless_it_is_marked_as_encoded(given, sent):
    command = Hangup(client_state=given)
    assert command.body() == {"client_state": sent}
    assert isinstance(command.client_state, Base64)


def test_client_state_of_a_request_is_encoded_already():
    command = Hangup.parse({"client_state": "dGlja2V0IDE3"})
    assert command.client_state.data == b"ticket 17"
    assert command.body() == {"client_state": "dGlja2V0IDE3"}


def test_client_state_of_a_request_that_is_no_base64_is_refused():
    with pytest.raises(ParameterError, match=r"^hangup: client_state: 'ticket 17' is not Base64$"):
        Hangup.parse({"client_state": "ticket 17"})


def test_client_state_that_is_not_utf_8_is_refused():
    with pytest.raises(
        ParameterError, match=r"^hangup: client_state: '\\ud800' is not UTF-8 text$"
    ):
        Hangup(client_state="\ud800")


@given(st.binary())
def test_base64_gives_back_what_was_encoded(data):
    assert Base64.of(data).data == data


def test_playback_content_is_encoded_from_bytes_and_taken_as_it_is_from_text():
    assert PlaybackStart(playback_content=b"ID3").body() == {"playback_content": "SUQz"}
    assert PlaybackStart(playback_content="SUQz").body() == {"playback_content": "SUQz"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("udp:192.0.2.1:9000", Address("192.0.2.1", 9000)),
        ("udp:[2001:db8::1]:65535", Address("2001:db8::1", 65535)),
    ],
)
def test_target_is_read_and_written(text, address):
    assert parse_target(text) == address
    assert target_text(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "udp:",
        "192.0.2.1:9000",
        "UDP:192.0.2.1:9000",
        "udp:192.0.2.1",
        "udp:192.0.2.1:0",
        "udp:192.0.2.1:65536",
        "udp:192.0.2.256:9000",
        "udp:example.com:9000",
        "udp:2001:db8::1:9000",
        "udp:[::g]:9000",
        "udp:[192.0.2.1]:9000",
        "udp:192.0.2.1:9000 ",
        "udp:192.0.2.1:\uff19000",
    ],
)
def test_what_is_no_target_is_refused(text):
    with pytest.raises(ValueError, match="is not udp:IP:PORT"):
        parse_target(text)


@given(st.text(max_size=40) | st.from_regex(r"udp:[0-9.:\[\]a-f]{0,30}", fullmatch=True))
def test_target_is_read_or_refused_whatever_it_is(text):
    try:
        address = parse_target(text)
    except ValueError:
        return
    assert parse_target(target_text(address)) == address
