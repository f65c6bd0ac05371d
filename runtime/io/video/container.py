"""Opens a video file: the format by its first bytes, and nothing but this file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from maskrt.runtime.errors import InputError, MaskrtError
from maskrt.runtime.files import open_plain
from maskrt.runtime.io.video import avi, matroska, mp4
from maskrt.runtime.io.video.parts import Damage, size_of
from maskrt.runtime.io.video.tracks import CODECS

WALKS = {"mov": mp4.find_damage, "matroska": matroska.find_damage, "avi": avi.find_damage}
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif")
# What else people have named .mp4 or .mkv; only used to say what a refused file is.
_OTHERS = (
    (b"ffconcat", "an FFmpeg concat script"),
    (b"#EXTM3U", "an HLS playlist"),
    (b"<", "an XML or HTML text"),
    (b"v=0", "an SDP description"),
    (b"\x00\x00\x01\xba", "an MPEG program stream"),
    (b"\x00\x00\x00\x01", "a bare H.264 or H.265 stream"),
    (b"OggS", "Ogg"),
    (b"FLV", "Flash video"),
    (b"\x30\x26\xb2\x75", "Windows Media"),
    (b"GIF8", "a GIF picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8", "a JPEG picture"),
    (b"RIFF", "a RIFF file without video"),
)


@dataclass(frozen=True)
class VideoFile:
    """An open video file.

    file: what the demuxer reads from; kind: FFmpeg's demuxer, a key of WALKS; damages: what the walk over it found.
    """

    av: Any
    container: Any
    file: BinaryIO
    kind: str
    damages: list[Damage]

    def close(self) -> None:
        """Close the demuxer and the file."""
        self.container.close()
        self.file.close()


def open_video(path: Path, max_pixels: int) -> VideoFile:
    """Open a video file.

    FFmpeg gets an open file in place of a name, so that a name such as "http:x.mp4" is a file. It gets the format as
    well, so that no other of its 400 demuxers ever sees the file, and it is refused any further file or address, which
    playlists and QuickTime references ask for.

    Raises:
        InputError: it is no plain file, of another format, or damaged so that it cannot be opened.
        MaskrtError: PyAV is not installed.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise MaskrtError("reading a video needs PyAV: pip install 'maskrt[video]'") from error
    file = open_plain(path)
    try:
        kind = _kind(path, file.read(16))
        if kind == "mov":
            _check_tables(path, file)
        damages = WALKS[kind](file)
        file.seek(0)
        # A little more than asked for: decoders round up to whole blocks. The track's size is checked exactly, later.
        probing = {
            "max_pixels": str(max_pixels + max_pixels // 16 + 128 * 128),
            "codec_whitelist": ",".join(sorted(CODECS)),  # decoders of sound, subtitles and others are never opened
        }
        container = av.open(
            file,
            "r",
            format=kind,
            options=probing,
            metadata_errors="replace",
            io_open=_refuse,
        )
    except (av.error.FFmpegError, OSError) as error:
        file.close()
        raise InputError(f"{path} cannot be opened as a video ({reason_of(error)}): record or copy it again") from error
    except BaseException:
        file.close()
        raise
    return VideoFile(av, container, file, kind, damages)


def reason_of(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]


def _refuse(url: str, flags: int, options: dict[str, str]) -> Any:
    raise PermissionError(f"the file asks for {url}, and a video is one file")


def _check_tables(path: Path, file: BinaryIO) -> None:
    samples, size = mp4.most_samples(file), size_of(file)
    # 8: old QuickTime counts up to 6 samples of packed sound a byte.
    if samples > 8 * size:
        raise InputError(f"{path}: its header states {samples} frames in {size} bytes: damaged, copy it again")


def _kind(path: Path, head: bytes) -> str:
    if not head:
        raise InputError(f"{path} is an empty file: copy it again")
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        raise InputError(f"{path} is a HEIF picture, not a video: export it as JPEG or PNG")
    if head[4:8] in _MP4_BOXES:
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return "avi"
    found = next((what for start, what in _OTHERS if head.startswith(start)), None)
    what = f"is {found}" if found else f"begins with {head!r}, which is none that maskrt knows"
    raise InputError(f"{path} {what}: a video is MP4 or QuickTime, Matroska or WebM, or AVI; convert it to one of them")
