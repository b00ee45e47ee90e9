"""A video segmented frame by frame, through PyAV: as many frames, at the same times, with the sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.errors import InputError
from atrous.kernels.upsampling import highest
from atrous.predict import Predictor
from atrous.replacing import replacing
from atrous.visualize import Style, draw

TARGETS = {".mp4": "libx264", ".m4v": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
VIDEOS = (*TARGETS, ".avi", ".mpg", ".mpeg", ".wmv", ".ts")
QUALITY = {"crf": "18"}  # of x264: the eye sees no difference
FRAME = Style(names=False, legend=False)  # of a frame: names would jump
LEAST_SHARE = 0.95  # of the frames that a file announces by its length, which is not exact
BT709 = 1  # the number of these primaries, curve and matrix in ITU-T H.273


@dataclass
class Segmented:
    """What became of a video."""

    frames: int
    notes: list[str]  # what a person should know, one line each


def segment_video(
    predictor: Predictor,
    source: Path,
    target: Path,
    smoothing: float = 0.0,
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    style: Style = FRAME,
) -> Segmented:
    """Write `target`: `source` with the class colours over every frame.

    smoothing: the probabilities of a frame are mixed with those of the frames before it, p = s p_before + (1 - s) p,
    an exponential average that calms flicker; 0 is without. style: of every frame. progress(done, of, note).
    Frames are turned and mirrored as the file says: the result is stored as it is shown. Number and times of the
    frames stay. The sound is copied where the new file can hold it. Odd sizes stay too: such a file has colours at
    full resolution (4:4:4), which not every player shows.

    Raises InputError without PyAV, for a file that is no video or is damaged from the start, for a target that exists
    or that no video can be written to. A video that breaks off is written as far as it goes, and a note says so.
    """
    av = import_av()
    if not 0 <= smoothing < 1:
        raise InputError(f"smoothing {smoothing} must be from 0 to below 1")
    if target.suffix.lower() not in TARGETS:
        raise InputError(f"{target}: wanted the name of a video that ends in {' '.join(TARGETS)}")
    if target.exists() and (not overwrite or target.resolve() == source.resolve()):
        raise InputError(f"{target}: exists already; give another --out, or --overwrite")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            replacing(target) as beside,
            open_video(av, source) as container,
            av.open(str(beside), "w") as out,
        ):
            seen = _Source(av, container, out, source)
            frames = _transcode(predictor, seen, smoothing, progress, style)
    except av.FFmpegError as error:
        raise InputError(f"{target}: cannot be written as a video ({error})") from None
    return Segmented(frames, seen.notes)


def import_av() -> Any:
    """PyAV; InputError with the command where it is missing."""
    try:
        import av
    except ImportError:
        raise InputError("videos need PyAV: pip install 'atrous[video]'") from None
    return av


def open_video(av: Any, path: Path) -> Any:
    """The opened file, which has a video stream; InputError otherwise."""
    if not path.is_file():
        raise InputError(f"{path}: no such video")
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        what = f"not a readable video ({error.strerror})" if path.stat().st_size else "the file is empty"
        raise InputError(f"{path}: {what}") from None
    if not container.streams.video:
        container.close()
        raise InputError(f"{path}: has no pictures in it")
    return container


class _Clock:
    """Times that only go forwards: where a file begins anew, as one put behind another does, the rest moves on."""

    def __init__(self) -> None:
        self.shift = 0
        self.last: int | None = None

    def move(self, time: int, step: int) -> int:
        """What is to be added to a time; step: what follows the time before at the earliest."""
        if self.last is not None and time + self.shift <= self.last:
            self.shift = self.last + step - time
        self.last = time + self.shift
        return self.shift


class _Source:
    """The frames of a video in their order; the packets of its sound are handed on to the new file."""

    def __init__(self, av: Any, container: Any, out: Any, path: Path) -> None:
        self.av, self.container, self.out, self.path = av, container, out, path
        self.video = container.streams.video[0]
        self.video.thread_type = "AUTO"
        self.notes: list[str] = []
        self.sound = container.streams.audio[0] if container.streams.audio else None
        self.new_sound: Any = None
        self.heard: list[Any] = []  # packets that came before the new file could be begun
        self.seen_at, self.heard_at = _Clock(), _Clock()
        if self.sound is not None and not self.sound.sample_rate:  # no piece of it came before the file's end
            self.notes.append(f"{path}: the sound is announced and not there: left out")
            self.sound = None
        if self.sound is not None and not _holds(av, out.format.name, path):
            sound, ending = self.sound.codec_context.name, Path(out.name).suffix
            self.notes.append(f"{path}: the sound ({sound}) cannot be copied into a {ending}: left out")
            self.sound = None
        if self.sound is not None:
            self.new_sound = out.add_stream_from_template(self.sound)

    @property
    def count(self) -> int:
        """Of the frames, as far as the file says it."""
        seconds = (self.container.duration or 0) / self.av.time_base
        return int(self.video.frames or seconds * float(self.rate))

    @property
    def rate(self) -> Fraction:
        """Frames a second."""
        return Fraction(self.video.average_rate or self.video.guessed_rate or 25)

    def frames(self) -> Iterator[Any]:
        streams = [self.video, *([self.sound] if self.sound is not None else [])]
        count = 0
        try:
            for packet in self.container.demux(*streams):
                if packet.stream is self.sound:
                    if packet.dts is not None:
                        later = self.heard_at.move(packet.dts, packet.duration or 1)
                        packet.dts += later
                        packet.pts = packet.dts if packet.pts is None else packet.pts + later
                        self.heard.append(packet)
                    continue
                for frame in packet.decode():
                    if frame.pts is not None:
                        step = max(1, round(1 / (self.rate * frame.time_base)))
                        frame.pts += self.seen_at.move(frame.pts, step)
                    yield frame
                    count += 1
        except self.av.FFmpegError as error:
            self.notes.append(f"{self.path}: breaks off after {count} frames ({error.strerror})")

    def hand_on_sound(self) -> None:
        """To be called when the new video has its stream, now and then."""
        for packet in self.heard:
            packet.stream = self.new_sound
            self.out.mux(packet)
        self.heard.clear()


def _holds(av: Any, kind: str, path: Path) -> bool:
    """Whether a file of this kind may have this sound; some say it only when they write their head or their end."""
    try:
        with open_video(av, path) as source, av.open(BytesIO(), "w", format=kind) as trial:
            copy = trial.add_stream_from_template(source.streams.audio[0])
            for packet in source.demux(audio=0):
                if packet.dts is not None:
                    packet.stream = copy
                    trial.mux(packet)
                    break
    except (av.FFmpegError, ValueError):
        return False
    return True


def _transcode(
    predictor: Predictor,
    source: _Source,
    smoothing: float,
    progress: Callable[[int, int, str], None] | None,
    style: Style,
) -> int:
    """Returns the number of frames."""
    drawn: Any = None
    mean: Tensor | None = None
    done = 0
    for frame in source.frames():
        image = upright(frame)
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        if smoothing:
            mean = smoothed(mean, predictor.scores(pixels), smoothing)
            labels = highest(mean)
        else:
            labels = predictor.label_map(pixels)
        picture = draw(image, labels.cpu().numpy(), predictor.labels, style)
        if drawn is None:
            drawn = _encoder(source, frame, picture)
        new = source.av.VideoFrame.from_ndarray(picture, format="rgb24")
        new = new.reformat(format=drawn.pix_fmt, dst_colorspace="ITU709")
        known = frame.pts is not None
        new.pts, new.time_base = (frame.pts, frame.time_base) if known else (done, 1 / source.rate)
        source.out.mux(drawn.encode(new))
        source.hand_on_sound()
        done += 1
        if progress:
            progress(done, max(source.count, done), source.path.name)
    if drawn is None:
        raise InputError(f"{source.path}: not one frame could be read")
    if done < LEAST_SHARE * source.count and not source.notes:
        source.notes.append(f"{source.path}: about {source.count} frames are announced, {done} are there")
    source.out.mux(drawn.encode(None))
    source.hand_on_sound()
    return done


def smoothed(before: Tensor | None, now: Tensor, smoothing: float) -> Tensor:
    """The exponential average of probabilities; it begins anew where there was none, or of another size."""
    if before is None or before.shape != now.shape:
        return now
    return before.lerp(now, 1 - smoothing)


def upright(frame: Any) -> NDArray[np.uint8]:
    """(H, W, 3) RGB as a player shows it: turned by quarters and mirrored as the file asks for."""
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    swapped, upwards, leftwards = _axes(frame)
    if swapped:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels[:: -1 if upwards else 1, :: -1 if leftwards else 1])


def _axes(frame: Any) -> tuple[bool, bool, bool]:
    """Whether rows and columns are swapped, and whether rows then go upwards and columns leftwards.

    By the matrix of ISO/IEC 14496-12: a pixel (x, y) is shown at (a x + c y, b x + d y).
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    swapped = abs(b) > abs(a)
    return (True, b < 0, c < 0) if swapped else (False, d < 0, a < 0)


def _encoder(source: _Source, frame: Any, picture: NDArray[np.uint8]) -> Any:
    """The new video's stream, of the picture's size and the source's rate."""
    height, width = picture.shape[:2]
    codec = TARGETS[Path(source.out.name).suffix.lower()]
    stream = source.out.add_stream(codec, rate=source.rate, options=QUALITY)
    stream.width, stream.height = width, height
    stream.pix_fmt = "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"
    context = stream.codec_context
    if frame.pts is not None:
        context.time_base = frame.time_base
    context.color_primaries = context.color_trc = context.colorspace = BT709
    aspect = source.video.sample_aspect_ratio
    if aspect:
        context.sample_aspect_ratio = 1 / aspect if _axes(frame)[0] else aspect
    return stream
