from __future__ import annotations

import errno
import io
import os
import resource
import threading
import weakref
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.sinks.finishing import Finisher
from pipeline.sinks.wavfile import ALAW, MULAW, PCM16, WavFile, header


def column(*samples, dtype=np.int16):
    return np.array(samples, dtype)[:, None]


def umask():
    """Return what the process takes away from new files' permissions."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def finish(file):
    """Complete a file and give it its name, as recordings are."""
    assert Finisher().finish(file).result() == (file.path, None, None)


def data(path):
    return path.read_bytes()[94:]


def test_header_has_the_sizes_of_its_chunks():
    assert header(PCM16, 2, 8000, 5) == (
        b"RIFF\x6a\x00\x00\x00WAVE"
        b"JUNK\x1c\x00\x00\x00"
        b"\x6a\x00\x00\x00\x00\x00\x00\x00\x14\x00\x00\x00\x00\x00\x00\x00"
        b"\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
        b"fmt \x12\x00\x00\x00"
        b"\x01\x00\x02\x00\x40\x1f\x00\x00\x00\x7d\x00\x00\x04\x00\x10\x00\x00\x00"
        b"fact\x04\x00\x00\x00\x05\x00\x00\x00"
        b"data\x14\x00\x00\x00"
    )


def test_header_names_the_law_and_eight_bits():
    assert header(ALAW, 1, 8000, 2)[56:74] == bytes.fromhex(
        "060001 00401f0000 401f0000 0100 0800 0000"
    )
    assert header(MULAW, 1, 8000, 2)[56:74] == bytes.fromhex(
        "070001 00401f0000 401f0000 0100 0800 0000"
    )


def test_file_becomes_rf64_where_its_length_needs_more_than_32_bits():
    largest = (0xFFFF_FFFF - 86) // 4
    assert header(PCM16, 2, 8000, largest)[:4] == b"RIFF"
    large = header(PCM16, 2, 8000, largest + 1)
    assert large[:12] == b"RF64\xff\xff\xff\xffWAVE"
    assert large[12:20] == b"ds64\x1c\x00\x00\x00"
    assert int.from_bytes(large[20:28], "little") == 86 + 4 * (largest + 1)
    assert int.from_bytes(large[28:36], "little") == 4 * (largest + 1)
    assert int.from_bytes(large[36:44], "little") == largest + 1


def test_file_beyond_4_gib_is_read_to_its_end(tmp_path):
    file = WavFile(tmp_path / "long.wav", PCM16, 2, 8000)
    file.write(0, np.array([[1, 2]], np.int16))
    file.write(1_100_000_000, np.array([[3, 4], [5, 6]], np.int16))  # sparse on disk
    finish(file)
    assert (tmp_path / "long.wav").stat().st_size == 94 + 4 * 1_100_000_002
    with soundfile.SoundFile(tmp_path / "long.wav") as sound:
        assert sound.format == "RF64"
        assert sound.frames == 1_100_000_002
        sound.seek(1_099_999_999)
        assert sound.read(dtype="int16").tolist() == [[0, 0], [3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("sample_format", "subtype"), [(PCM16, "PCM_16"), (ALAW, "ALAW"), (MULAW, "ULAW")]
)
def test_readers_recognise_the_format(tmp_path, sample_format, subtype):
    file = WavFile(tmp_path / "a.wav", sample_format, 2, 8000)
    file.write(0, np.zeros((7, 2), sample_format.dtype))
    finish(file)
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.format, info.subtype, info.channels, info.samplerate, info.frames) == (
        *("WAV", subtype, 2),
        *(8000, 7),
    )


def test_frames_before_the_first_and_between_writes_are_silence(tmp_path):
    file = WavFile(tmp_path / "a.wav", PCM16, 1, 8000)
    file.write(2, column(10, 11))
    file.write(6, column(12))
    finish(file)
    assert soundfile.read(tmp_path / "a.wav", dtype="int16")[0].tolist() == [0, 0, 10, 11, 0, 0, 12]


@pytest.mark.parametrize(("law", "silence"), [(ALAW, 0xD5), (MULAW, 0xFF)])
def test_silence_of_a_law_is_its_code_however_long(tmp_path, law, silence):
    file = WavFile(tmp_path / "a.wav", law, 1, 8000)
    file.write(200_000, column(1, 2, dtype=np.uint8))
    finish(file)
    assert data(tmp_path / "a.wav") == bytes([silence]) * 200_000 + b"\x01\x02"


def test_later_write_replaces_what_was_there(tmp_path):
    file = WavFile(tmp_path / "a.wav", PCM16, 1, 8000)
    file.write(0, column(1, 2, 3, 4))
    file.write(1, column(7, 8))
    assert file.frames == 4
    finish(file)
    assert soundfile.read(tmp_path / "a.wav", dtype="int16")[0].tolist() == [1, 7, 8, 4]


def test_read_returns_what_was_written(tmp_path):
    file = WavFile(tmp_path / "a.wav", PCM16, 2, 8000)
    file.write(1, np.array([[1, -1], [2, -2], [3, -3]], np.int16))
    assert file.read(0, 3).tolist() == [[0, 0], [1, -1], [2, -2]]
    file.discard()


def test_read_of_a_file_that_was_cut_by_somebody_else_says_so(tmp_path):
    file = WavFile(tmp_path / "a.wav", PCM16, 1, 8000)
    file.write(0, column(1, 2, 3, 4))
    os.truncate(tmp_path / "a.wav.part", 98)
    with pytest.raises(OSError, match=r"a\.wav\.part was cut"):
        file.read(0, 4)
    file.discard()


def test_odd_number_of_bytes_is_padded(tmp_path):
    file = WavFile(tmp_path / "a.wav", ALAW, 1, 8000)
    file.write(0, column(1, 2, 3, dtype=np.uint8))
    finish(file)
    assert data(tmp_path / "a.wav") == b"\x01\x02\x03\x00"
    assert (tmp_path / "a.wav").read_bytes()[4:8] == (98 - 8).to_bytes(4, "little")
    assert soundfile.info(tmp_path / "a.wav").frames == 3


def test_file_is_called_part_until_it_is_finished(tmp_path):
    file = WavFile(tmp_path / "a.wav", PCM16, 1, 8000)
    file.write(0, column(5))
    assert names(tmp_path) == ["a.wav.part"]
    finish(file)
    assert names(tmp_path) == ["a.wav"]


def test_unfinished_file_can_be_read_once_its_header_was_written(tmp_path):
    file = WavFile(tmp_path / "a.wav", PCM16, 1, 8000)
    file.write(0, column(5, 6, 7))
    file.write_header()
    assert soundfile.read(tmp_path / "a.wav.part", dtype="int16")[0].tolist() == [5, 6, 7]
    file.discard()


def test_name_that_is_taken_is_refused_and_left_alone(tmp_path):
    (tmp_path / "a.wav").write_text("mine")
    (tmp_path / "b.wav.part").write_text("mine too")
    for name in "a.wav", "b.wav":
        with pytest.raises(FileExistsError):
            WavFile(tmp_path / name, PCM16, 1, 8000)
    assert (tmp_path / "a.wav").read_text() == "mine"
    assert (tmp_path / "b.wav.part").read_text() == "mine too"
    assert names(tmp_path) == ["a.wav", "b.wav.part"]


@pytest.fixture(params=["unnamed at first", "named at once", "no /proc"])
def way(request, monkeypatch):
    """How files are made: as Linux can, as others do, and where there is no way to name them."""
    if request.param == "named at once":
        monkeypatch.setattr("pipeline.sinks.wavfile._O_TMPFILE", None)
    elif request.param == "no /proc":

        def link(*_args, **_names):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

        monkeypatch.setattr(os, "link", link)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("needs files without a name: Linux")
    return request.param


@pytest.mark.usefixtures("way")
def test_file_is_made_and_named_in_every_way(tmp_path):
    (tmp_path / "b.wav.part").write_text("mine")
    (tmp_path / "c.wav").write_text("mine too")
    file = WavFile(tmp_path / "a.wav", PCM16, 1, 8000)
    with pytest.raises(BlockingIOError):
        WavFile.adopt(file.part)
    for name in "a.wav", "b.wav", "c.wav":
        with pytest.raises(FileExistsError):
            WavFile(tmp_path / name, PCM16, 1, 8000)
    assert names(tmp_path) == ["a.wav.part", "b.wav.part", "c.wav"]
    file.write(0, column(1, 2))
    finish(file)
    assert soundfile.read(tmp_path / "a.wav", dtype="int16")[0].tolist() == [1, 2]
    assert oct((tmp_path / "a.wav").stat().st_mode & 0o777) == oct(0o666 & ~umask())


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs files without a name: Linux")
def test_file_has_its_name_only_when_it_opens(tmp_path, monkeypatch):
    """So that a process that is killed while it makes one leaves no file that does not open."""
    seen = []
    link = os.link

    def look(file, name, **how):
        seen.append(names(tmp_path))
        link(file, name, **how)
        seen.append(soundfile.info(io.BytesIO(name.read_bytes())).frames)

    monkeypatch.setattr(os, "link", look)
    file = WavFile(tmp_path / "a.wav", PCM16, 1, 8000)
    assert seen == [[], 0]
    file.discard()
    assert names(tmp_path) == []


def test_discarded_file_leaves_nothing(tmp_path):
    file = WavFile(tmp_path / "a.wav", PCM16, 1, 8000)
    file.discard()
    assert names(tmp_path) == []


def test_part_of_a_process_is_adopted_by_no_other_while_it_is_open(tmp_path):
    file = WavFile(tmp_path / "a.wav", MULAW, 1, 16_000)
    file.extend(4)
    file.write_header()
    with pytest.raises(BlockingIOError):
        WavFile.adopt(file.part)
    file.close()
    file.part.write_bytes(file.part.read_bytes() + b"1234567")
    adopted = WavFile.adopt(file.part)
    with pytest.raises(BlockingIOError):
        WavFile.adopt(file.part)
    assert (adopted.frames, adopted.sample_format, adopted.rate_hz) == (11, MULAW, 16_000)
    finish(adopted)
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.frames, info.samplerate, info.subtype) == (11, 16_000, "ULAW")
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_pad_of_a_completed_file_is_no_sample(tmp_path):
    file = WavFile(tmp_path / "a.wav", MULAW, 1, 8000)
    file.extend(5)
    file.complete()
    file.close()
    assert file.part.stat().st_size == 100
    adopted = WavFile.adopt(file.part)
    assert adopted.frames == 5
    adopted.close()


def test_last_descriptors_are_left_to_others(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/dev/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 40, hard))
    files = []
    try:
        with suppress(OSError):
            files.extend(WavFile(tmp_path / f"{i}.wav", PCM16, 1, 8000) for i in range(40))
        with pytest.raises(OSError, match="Too many open files"):
            WavFile(tmp_path / "one more.wav", PCM16, 1, 8000)
        assert 1 <= len(files) < 40
        with (tmp_path / "manifest").open("w"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for file in files:
            file.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest"]


def test_finisher_keeps_nothing_of_a_file_while_it_waits_for_the_next(tmp_path):
    finisher = Finisher(sync=True)
    finisher.start()
    outcome = finisher.finish(WavFile(tmp_path / "a.wav", PCM16, 1, 8000))
    outcome.result(10)
    is_gone = threading.Event()
    weakref.finalize(outcome, is_gone.set)
    del outcome
    assert is_gone.wait(10)
    finisher.stop()
