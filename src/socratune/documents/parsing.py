"""Reads PDF, DOCX and HTML in a separate process, so that a file that crashes or hangs it costs only that file.

    python -m socratune.documents.parsing        a JSON request per line of stdin, a JSON reply each

PDF through pypdfium2 (Chrome's parser: columns stay apart, table rows stay lines, three to ten times as fast as the
others that were tried), DOCX through mammoth, and DOCX and HTML through markdownify, which keeps headings and tables.
"""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from socratune.errors import Fault, Shown

LIBRARIES = {".pdf": ("pypdfium2",), ".docx": ("mammoth", "markdownify"), ".html": ("markdownify",)}
LIBRARIES[".htm"] = LIBRARIES[".html"]
_TIMEOUT_S = 120.0
_MEMORY_BYTES = 4 << 30
MOST_UNPACKED = 300 << 20
"""The most bytes of an unpacked DOCX. A book with pictures has fewer."""
FEWEST_LETTERS = 15
"""The fewest letters per page. With fewer it is a scan, whose only text is stamps and numbers."""


class Unparsed(Exception):
    """A file has no text. `reason` is a word to count by, and `detail` explains it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def missing_parser(suffix: str) -> Fault | None:
    """Returns the error for a kind of file whose parser is not installed, or None."""
    from importlib.util import find_spec

    missing = [name for name in LIBRARIES.get(suffix, ()) if find_spec(name) is None]
    if not missing:
        return None
    got = Shown(f"no {' and no '.join(missing)}")
    return Fault(f"*{suffix}", "the libraries that read such files", got, "pip install 'socratune[documents]'")


class Parser:
    """A context manager for the process that parses. It starts with the first file, and again after a crash."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Parser:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def text(self, path: Path, suffix: str) -> tuple[str, list[int]]:
        """Returns the text of a file, and where the pages of a PDF begin.

        Raises:
            Unparsed: it has no text, or parsing exceeded `_TIMEOUT_S` or `_MEMORY_BYTES`.
        """
        child = self._child = self._child or _started()
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps([str(path), suffix]).encode() + b"\n")
            child.stdin.flush()
            ready, _, _ = select.select([child.stdout], [], [], _TIMEOUT_S)
            reply = json.loads(child.stdout.readline()) if ready else None
        except (OSError, ValueError):
            self._end()
            raise Unparsed("damaged", "the parser crashed") from None
        if reply is None:
            self._end()
            raise Unparsed("too_slow", f"no text after {_TIMEOUT_S:.0f} s")
        if "reason" in reply:
            raise Unparsed(**reply)
        return reply["text"], reply["pages"]

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _started() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "socratune.documents.parsing"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


# --- in the process that parses ------------------------------------------------------------------------------------


def _pdf(path: Path) -> tuple[str, list[int]]:
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        document = PdfDocument(path)
    except PdfiumError as error:
        locked = "password" in str(error).lower()
        raise Unparsed("encrypted" if locked else "damaged", str(error)[:200]) from None
    pages = [_flowing(page.get_textpage().get_text_bounded()) for page in document]
    if sum(map(len, pages)) < FEWEST_LETTERS * len(pages):
        raise Unparsed("no_text_layer", f"{len(pages)} scanned pages; give them a text layer first, e.g. with OCRmyPDF")
    begins, at = [], 0
    for page in pages:
        begins.append(at)
        at += len(page) + 2
    return "\n\n".join(pages), begins


def _flowing(text: str) -> str:
    """Returns a page with its lines joined into paragraphs. A line that reaches the margin continues in the next."""
    lines = [line.strip() for line in text.replace("\ufffe", "-").splitlines()]
    widths = sorted(len(line) for line in lines if line)
    if not widths:
        return ""
    margin = 0.7 * widths[len(widths) * 9 // 10]
    parts: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        full = len(line) >= margin and following and not re.match(r"[-•*]\s|\d+[.)]\s", following)
        if full and line.endswith("-") and following[:1].islower():
            parts.append(line[:-1])
        else:
            parts.append(line + (" " if full else "\n\n" if len(line) >= margin or line.endswith((".", ":")) else "\n"))
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).strip()


def _docx(path: Path) -> tuple[str, list[int]]:
    import mammoth

    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(entry.file_size for entry in packed.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise Unparsed("damaged", str(error)[:200]) from None
    if unpacked > MOST_UNPACKED:
        raise Unparsed("zip_bomb", f"{unpacked >> 20} MB unpacked out of {path.stat().st_size >> 10} kB")
    with path.open("rb") as stream:
        no_pictures = mammoth.images.img_element(lambda image: {"src": ""})
        return _markdown(mammoth.convert_to_html(stream, convert_image=no_pictures).value), []


def _html(path: Path) -> tuple[str, list[int]]:
    return _markdown(path.read_bytes().decode("utf-8-sig")), []


def _markdown(html: str) -> str:
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    page = BeautifulSoup(html, "html.parser")
    for name in ("script", "style", "nav", "header", "footer", "aside", "form", "img", "template", "noscript"):
        for tag in page.find_all(name):
            tag.decompose()
    body: Any = page.find("main") or page.find("article") or page.body or page
    converter = MarkdownConverter(
        heading_style="ATX", strip=["a"], escape_asterisks=False, escape_underscores=False, escape_misc=False
    )
    return re.sub(r"\n{3,}", "\n\n", converter.convert_soup(body)).strip()


PARSE: dict[str, Callable[[Path], tuple[str, list[int]]]] = {
    ".pdf": _pdf,
    ".docx": _docx,
    ".html": _html,
    ".htm": _html,
}


def _replies(requests: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for request in requests:
        path, suffix = json.loads(request)
        try:
            text, pages = PARSE[suffix](Path(path))
            yield {"text": text.encode("utf-8", "replace").decode(), "pages": pages}
        except Unparsed as error:
            yield {"reason": error.reason, "detail": error.detail}
        except UnicodeDecodeError as error:
            yield {"reason": "bad_encoding", "detail": f"no UTF-8 at byte {error.start}"}
        except MemoryError:
            yield {"reason": "too_large", "detail": f"more than {_MEMORY_BYTES >> 30} GB of memory to parse"}
        except Exception as error:  # a parser may raise anything for a corrupt file; the next file is still parsed
            yield {"reason": "damaged", "detail": f"{type(error).__name__}: {error}"[:200]}


def _serve() -> None:
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = _MEMORY_BYTES if most == resource.RLIM_INFINITY else min(_MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    out = sys.stdout.buffer
    sys.stdout = sys.stderr  # a library that prints must not break the replies
    for reply in _replies(iter(sys.stdin.buffer.readline, b"")):
        out.write(json.dumps(reply).encode() + b"\n")
        out.flush()


if __name__ == "__main__":
    _serve()
