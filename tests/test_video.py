"""Videos: written and read again with PyAV, against the predictor on the frames themselves."""

from __future__ import annotations

import itertools
import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atrous.cli import main
from atrous.errors import InputError
from atrous.predict import Predictor
from atrous.video import FRAME, segment_video, smoothed, upright
from atrous.visualize import draw

RATE = Fraction(30000, 1001)


def test_the_average_of_probabilities_by_hand() -> None:
    frames = [torch.tensor([value, 1 - value]) for value in (1.0, 0.0, 0.0, 1.0)]
    mean, seen = None, []
    for frame in frames:
        mean = smoothed(mean, frame, 0.75)
        seen.append(float(mean[0]))
    assert seen == [1.0, 0.75, 0.5625, 0.671875]
    assert smoothed(mean, torch.zeros(3), 0.75).tolist() == [0, 0, 0]  # another size begins anew


def test_without_pyav_the_command_is_named(
    scene_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(scene_checkpoint), str(tmp_path / "a.mp4")])
    assert stop.value.code == 2
    assert "pip install 'atrous[video]'" in capsys.readouterr().err


def drawn(number: int, height: int, width: int) -> np.ndarray:
    """A smooth picture that the codec hardly changes."""
    down, across = np.mgrid[:height, :width].astype(float)
    channels = [down * 4 + 10 * number, across * 3, 255 - down * 2 - across]
    return np.stack(channels, -1).clip(0, 255).astype(np.uint8)


def write(
    path: Path,
    size: tuple[int, int] = (48, 64),
    frames: int = 7,
    sound: str | None = None,
    layout: str = "mono",
    turned: int = 0,
) -> list[int]:
    """A video in 4:4:4, so of any size; returns the times of its frames, of which the last comes late."""
    av = pytest.importorskip("av")
    times = [512 * i for i in range(frames - 1)] + [512 * (frames + 2)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "1"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv444p"
        stream.codec_context.time_base = Fraction(1, 15360)
        if turned:
            stream.set_display_rotation(turned)
        track = container.add_stream(sound, rate=8000, layout=layout) if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(drawn(number, *size), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 15360)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track:
            tone = (np.sin(np.arange(4096) / 5) * 8000).astype(np.int16)
            for start in range(0, 4096, 1024):
                part = np.repeat(tone[None, start : start + 1024], 2 if layout == "stereo" else 1, axis=1)
                samples = av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
                samples.sample_rate, samples.pts = 8000, start
                container.mux(track.encode(samples))
            container.mux(track.encode(None))
    return times


def read(path: Path) -> tuple[list[np.ndarray], list[Fraction], Any]:
    """Frames as a player shows them, their times in seconds, and the sound's packets."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        pixels = [np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)) for frame in frames]
        times = [frame.pts * frame.time_base for frame in frames]
    with av.open(str(path)) as container:
        sound = [bytes(packet) for packet in container.demux(audio=0)] if container.streams.audio else []
    return pixels, times, sound


@pytest.fixture
def predictor(scene_checkpoint: Path) -> Predictor:
    return Predictor(scene_checkpoint)


@pytest.mark.parametrize("size", [(48, 64), (37, 51)])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_every_frame_at_its_time_with_its_sound(
    predictor: Predictor, tmp_path: Path, size: tuple[int, int], ending: str
) -> None:
    source, target = tmp_path / "a.mp4", tmp_path / f"b.{ending}"
    write(source, size, sound="aac")
    seen: list[int] = []
    result = segment_video(predictor, source, target, progress=lambda done, of, note: seen.append(of - done))
    before, times, sound = read(source)
    after, new_times, new_sound = read(target)
    assert (result.frames, result.notes) == (7, [])
    assert seen == [6, 5, 4, 3, 2, 1, 0]
    assert len(after) == len(before) == 7
    atol = 0 if ending == "mp4" else 0.001  # mkv counts milliseconds
    assert [float(t - new_times[0]) for t in new_times] == pytest.approx(
        [float(t) for t in times], abs=atol + 1e-9
    )
    for old, new in zip(before, after, strict=True):
        expected = draw(old, predictor.predict(old).labels, predictor.labels, FRAME)
        assert new.shape == (*size, 3)
        assert np.abs(new.astype(int) - expected).mean() < 8  # lossy, with coarse colours
    assert len(sound) > 3
    assert [packet for packet in new_sound if packet] == [packet for packet in sound if packet]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.mp4", target.name])


@pytest.mark.parametrize(
    "sound, endings, others",
    [
        ("flac", [".mp4", ".mkv"], [".mov", ".m4v", ".webm"]),
        ("pcm_s16le", [".mov", ".mp4", ".mkv"], [".m4v", ".webm"]),
    ],
)
def test_sound_that_the_new_file_cannot_hold_is_left_out(
    predictor: Predictor, tmp_path: Path, sound: str, endings: list[str], others: list[str]
) -> None:
    """By the lists of the formats: FLAC is in ISO's MP4 and Matroska, not in QuickTime's MOV, Apple's M4V and WebM."""
    source = tmp_path / f"a{endings[0]}"
    write(source, frames=3, sound=sound)
    packets = [packet for packet in read(source)[2] if packet]
    for ending in [*endings, *others]:
        result = segment_video(predictor, source, tmp_path / f"b{ending}")
        frames, _, copied = read(tmp_path / f"b{ending}")
        assert len(frames) == result.frames == 3
        if ending in endings:
            assert (result.notes, b"".join(copied)) == ([], b"".join(packets))
        else:
            assert copied == []
            (note,) = result.notes
            assert note == f"{source}: the sound ({sound}) cannot be copied into a {ending}: left out"


def test_sound_that_is_refused_at_the_end(predictor: Predictor, tmp_path: Path) -> None:
    """Matroska does not say where the channels are, which MP4 wants of PCM, and says when all is written."""
    write(tmp_path / "a.mkv", frames=60, sound="pcm_s16le", layout="stereo")
    result = segment_video(predictor, tmp_path / "a.mkv", tmp_path / "b.mp4")
    assert result.notes == [
        f"{tmp_path / 'a.mkv'}: the sound (pcm_s16le) cannot be copied into a .mp4: left out"
    ]
    assert len(read(tmp_path / "b.mp4")[0]) == 60


@pytest.mark.parametrize("turned", [90, -90, 180])
def test_a_turned_video_comes_out_upright(predictor: Predictor, tmp_path: Path, turned: int) -> None:
    write(tmp_path / "a.mp4", (48, 64), turned=turned)
    segment_video(predictor, tmp_path / "a.mp4", tmp_path / "b.mp4")
    before, *_ = read(tmp_path / "a.mp4")
    after, *_ = read(tmp_path / "b.mp4")
    assert before[0].shape == ((64, 48, 3) if turned != 180 else (48, 64, 3))
    upright = np.rot90(drawn(0, 48, 64), round(turned / 90))
    assert np.abs(before[0].astype(int) - upright).mean() < 4
    for old, new in itertools.islice(zip(before, after, strict=True), 2):
        expected = draw(old, predictor.predict(np.ascontiguousarray(old)).labels, predictor.labels, FRAME)
        assert np.abs(new.astype(int) - expected).mean() < 8


BOTH = (-1, 1)


@pytest.mark.parametrize(
    "matrix", [*itertools.product(BOTH, [0], [0], BOTH), *itertools.product([0], BOTH, BOTH, [0])]
)
def test_a_mirrored_video_comes_out_upright(
    predictor: Predictor, tmp_path: Path, matrix: tuple[int, int, int, int]
) -> None:
    """All quarter turns, mirrored and not, pixel by pixel: one at (x, y) is shown at (a x + c y, b x + d y)."""
    av = pytest.importorskip("av")
    a, b, c, d = matrix
    write(tmp_path / "a.mp4", (36, 52), frames=2)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    places = content.index(b"tkhd") + 4 + 40  # of version 0, ISO/IEC 14496-12, 8.3.2
    struct.pack_into(">9i", content, places, a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(content)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
    stored = frame.to_ndarray(format="rgb24")
    shown = {(a * x + c * y, b * x + d * y): stored[y, x] for y, x in np.ndindex(36, 52)}
    left, top = np.min(list(shown), axis=0)
    expected = np.zeros((36, 52, 3) if a else (52, 36, 3), np.uint8)
    for (x, y), colour in shown.items():
        expected[y - top, x - left] = colour
    np.testing.assert_array_equal(upright(frame), expected)
    segment_video(predictor, tmp_path / "a.mp4", tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        frame = next(container.decode(video=0))
    assert frame.side_data.get("DISPLAYMATRIX") is None
    wanted = draw(expected, predictor.predict(expected).labels, predictor.labels, FRAME)
    assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - wanted).mean() < 8


def test_smoothing_averages_the_probabilities_of_the_frames(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import atrous.video as module

    write(tmp_path / "a.mp4", frames=4)
    labels: list[np.ndarray] = []

    def noting(image: np.ndarray, mask: np.ndarray, *how: Any) -> np.ndarray:
        labels.append(mask)
        return draw(image, mask, *how)

    monkeypatch.setattr(module, "draw", noting)
    segment_video(predictor, tmp_path / "a.mp4", tmp_path / "b.mp4", smoothing=0.6)
    mean = None
    for frame, found in zip(read(tmp_path / "a.mp4")[0], labels, strict=True):
        now = predictor.predict(frame, probabilities=True).probabilities
        mean = now if mean is None else 0.6 * mean + 0.4 * now
        top = np.sort(mean, 0)[-2:]
        clear = top[1] - top[0] > 1e-5
        np.testing.assert_array_equal(found[clear], mean.argmax(0)[clear])


def test_the_command(scene_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.mp4", frames=3)
    command = ["predict", str(scene_checkpoint), str(tmp_path / "a.mp4"), "--out", str(tmp_path / "b.mp4")]
    main([*command, "--smoothing", "0.5"])
    assert "3 frames -> " in capsys.readouterr().out
    for words, message in [
        (command, "b.mp4: exists already"),
        ([*command[:-1], str(tmp_path / "b.txt")], "wanted a folder or a name that ends in .mp4"),
        ([*command[:-1], str(tmp_path / "a.mp4"), "--overwrite"], "a.mp4: exists already"),
        ([*command, "--overwrite", "--smoothing", "1"], "smoothing 1.0 must be from 0 to below 1"),
        ([*command, "--probabilities"], "--probabilities is for pictures"),
        ([*command[:2], str(tmp_path / "a.mp4"), str(tmp_path / "c.jpg")], "predict a video alone"),
    ]:
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_what_is_no_video(predictor: Predictor, tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", frames=2)
    (tmp_path / "text.mp4").write_text("this is not a video")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:300])
    for name, message in [
        ("text.mp4", "not a readable video"),
        ("cut.mp4", "not a readable video"),
        ("empty.mp4", "the file is empty"),
        ("gone.mp4", "no such video"),
    ]:
        with pytest.raises(InputError, match=rf"{name}: {message}") as error:
            segment_video(predictor, tmp_path / name, tmp_path / "b.mp4")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "b.mp4").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_video_that_breaks_off_is_written_as_far_as_it_goes(predictor: Predictor, tmp_path: Path) -> None:
    write(tmp_path / "a.mkv", (96, 128), frames=60)
    whole = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    result = segment_video(predictor, tmp_path / "cut.mkv", tmp_path / "b.mp4")
    assert 0 < result.frames < 57
    assert len(read(tmp_path / "b.mp4")[0]) == result.frames
    assert len(result.notes) == 1
    assert result.notes[0].startswith(str(tmp_path / "cut.mkv"))


def test_one_file_behind_another_goes_on_where_the_first_ends(predictor: Predictor, tmp_path: Path) -> None:
    """Of MPEG transport streams that is done by `cat`; the second's times begin again."""
    write(tmp_path / "a.ts", frames=5, sound="aac")
    once = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "twice.ts").write_bytes(once + once)
    for ending in ("mp4", "mkv"):
        target = tmp_path / f"b.{ending}"
        result = segment_video(predictor, tmp_path / "twice.ts", target)
        frames, times, sound = read(target)
        assert result.frames == len(frames) == 10
        assert all(earlier < later for earlier, later in itertools.pairwise(times))
        single = read(tmp_path / "a.ts")[2]
        assert len([packet for packet in sound if packet]) == 2 * len([packet for packet in single if packet])


@pytest.mark.parametrize("size", [1000, 3000, 6000, 9000])
def test_a_stream_cut_anywhere_says_so(predictor: Predictor, tmp_path: Path, size: int) -> None:
    write(tmp_path / "a.ts", frames=9, sound="aac")
    (tmp_path / "cut.ts").write_bytes((tmp_path / "a.ts").read_bytes()[:size])
    try:
        result = segment_video(predictor, tmp_path / "cut.ts", tmp_path / "b.mp4")
    except InputError as error:
        assert str(error).startswith(str(tmp_path / "cut.ts"))
        assert not (tmp_path / "b.mp4").exists()
        return
    assert len(read(tmp_path / "b.mp4")[0]) == result.frames > 0
