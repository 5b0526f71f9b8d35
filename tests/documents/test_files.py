"""Documents of a user's own: every format, and every file that is hostile or damaged."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from socratune.documents import parsing
from socratune.documents.document import Document
from socratune.documents.files import files_of, read_files
from socratune.errors import UserError
from socratune.rows import Rejected


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that is none of the documents'."""
    (tmp_path / "elsewhere").mkdir()
    place = tmp_path / "elsewhere" / "passwd.txt"
    place.write_text("root:x:0:0:root:/root:/bin/bash")
    return place


@pytest.fixture
def linked(tmp_path: Path, secret: Path) -> Path:
    """A folder of documents with links within it and links out of it."""
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "own.md").write_text("Our own words.")
    (folder / "sub" / "near.md").symlink_to("../own.md")
    (folder / "notes.txt").symlink_to(secret)
    (folder / "relative.txt").symlink_to("../elsewhere/passwd.txt")
    (folder / "chained.txt").symlink_to("notes.txt")
    (folder / "etc").symlink_to(secret.parent, target_is_directory=True)
    (folder / "loop.txt").symlink_to("loop.txt")
    return folder


@pytest.mark.parametrize("pattern", ["", "*", "**/*", "*/*", "*.txt", "etc/*.txt", "../docs/*"])
def test_a_link_out_of_the_folder_is_not_followed_and_is_said(
    linked: Path, secret: Path, pattern: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = str(linked / pattern) if pattern else str(linked)
    if pattern == "etc/*.txt":  # the user has named that folder
        assert [path.resolve() for _, path in files_of(source)] == [secret]
        return
    if pattern == "*.txt":
        with pytest.raises(UserError, match="only links that lead out of it"):
            files_of(source)
        return
    documents, rejected = read(source)
    assert not any("root:" in document.text for document in documents.values())
    outside = [one for one in rejected.values() if one.reason == "outside"]
    assert outside and all(str(secret) in one.detail for one in outside)
    assert "leads out of it" in caplog.text
    if pattern in ("", "*", "**/*"):
        assert "own.md" in documents and {"notes.txt", "relative.txt", "chained.txt"} <= {one.id for one in outside}


def test_a_link_that_is_named_itself_is_followed(linked: Path, tmp_path: Path) -> None:
    assert len(files_of(str(linked / "notes.txt"))) == 1
    (tmp_path / "here").symlink_to(linked, target_is_directory=True)
    assert [name for name, _ in files_of(str(tmp_path / "here"))] == ["own.md", "sub/near.md"]


PARSERS = [name for suffix in (".pdf", ".docx", ".html") if parsing.missing_parser(suffix) for name in (suffix,)]
needs_parsers = pytest.mark.skipif(bool(PARSERS), reason=f"the extra [documents] is not installed: {PARSERS}")


def read(source: Path | str, max_file_mb: int = 5) -> tuple[dict[str, Document], dict[str, Rejected]]:
    found = list(read_files(str(source), max_file_mb=max_file_mb))
    documents = {one.id: one for one in found if isinstance(one, Document)}
    return documents, {one.id: one for one in found if isinstance(one, Rejected)}


def pdf(*pages: str) -> bytes:
    """A PDF with one line of text per page; an empty one has no text layer."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET" if text else "0 0 100 100 re f"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        font = "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
        contents = len(objects)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Resources {font} /Contents {contents} 0 R >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out = b"%PDF-1.4\n"
    places = []
    for number, text in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    trailer = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF"
    return out + end.encode() + trailer.encode()


def docx(path: Path, text: str, ballast: int = 0) -> None:
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = f'<w:document xmlns:w="{word}"><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>'
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    types = (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{kind}"/></Types>'
    )
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    rels = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="r1" Type="{office}" Target="word/document.xml"/></Relationships>'
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("[Content_Types].xml", types)
        packed.writestr("_rels/.rels", rels)
        packed.writestr("word/document.xml", body)
        if ballast:
            with packed.open("word/media/zeros.bin", "w", force_zip64=True) as stream:
                for _ in range(ballast):
                    stream.write(bytes(1 << 20))


def test_plain_files_and_tables(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a-boat.md").write_text("Intro\n\n# The boat\n\nIt is 9 m long.\r\n", "utf-8")
    (tmp_path / "b_note.txt").write_text("e\u0301 is one letter.", "utf-16")
    (tmp_path / "c.jsonl").write_text(
        '{"_key": "k1", "title": "Horn", "text": "It is loud.", "year": 1923}\n{"name": "x"}\nnonsense\n', "utf-8"
    )
    (tmp_path / "d.csv").write_text("id,content\n7,Oil burns.\n", "utf-8")
    (tmp_path / "e.csv").write_text("id,colour\n7,red\n", "utf-8")
    documents, rejected = read(tmp_path)
    assert list(documents) == ["b_note.txt", "c.jsonl/k1", "d.csv/7", "sub/a-boat.md"]
    assert documents["sub/a-boat.md"].title == "The boat"
    assert "\r" not in documents["sub/a-boat.md"].text
    assert documents["b_note.txt"].text == "é is one letter." and documents["b_note.txt"].title == "b note"
    assert documents["c.jsonl/k1"].title == "Horn" and documents["c.jsonl/k1"].metadata == {"year": 1923}
    reasons = {name: one.reason for name, one in rejected.items()}
    assert reasons == {"c.jsonl/line-2": "no_text", "c.jsonl/line-3": "bad_row", "e.csv": "damaged"}
    assert "text or content" in rejected["e.csv"].detail


@needs_parsers
def test_pdf_docx_and_html(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("The tower is 31 metres tall.", "The slip is 58 metres long."))
    docx(tmp_path / "b.docx", "The bell weighs 240 kilograms.")
    (tmp_path / "c.html").write_text("<nav>menu</nav><h2>Oil</h2><p>It <b>burns</b>.</p><script>x()</script>", "utf-8")
    documents, rejected = read(tmp_path)
    assert not rejected
    assert documents["a.pdf"].text == "The tower is 31 metres tall.\n\nThe slip is 58 metres long."
    assert documents["a.pdf"].metadata == {"pages": [0, 30]}
    assert documents["b.docx"].text == "The bell weighs 240 kilograms."
    assert documents["c.html"].text == "## Oil\n\nIt **burns**."


@pytest.mark.slow
@needs_parsers
def test_hostile_and_damaged_files_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_bytes(b"word " * 1_300_000)
    docx(tmp_path / "bomb.docx", "boom", ballast=400)
    (tmp_path / "broken.docx").write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    (tmp_path / "empty.md").write_text(" \n", "utf-8")
    (tmp_path / "latin.txt").write_bytes("Öl brennt.".encode("latin-1"))
    (tmp_path / "latin.html").write_bytes("<p>Öl brennt.</p>".encode("latin-1"))
    (tmp_path / "nul.txt").write_bytes(b"abc\0def")
    (tmp_path / "scan.pdf").write_bytes(pdf("", ""))
    (tmp_path / "same.md").write_text("The tower is 31 metres tall.", "utf-8")
    (tmp_path / "tower.md").write_text("The tower is 31 metres tall.", "utf-8")
    assert (tmp_path / "bomb.docx").stat().st_size < 1 << 20
    documents, rejected = read(tmp_path)
    assert list(documents) == ["same.md"]
    assert {name: one.reason for name, one in rejected.items()} == {
        "big.txt": "too_large",
        "bomb.docx": "zip_bomb",
        "broken.docx": "damaged",
        "broken.pdf": "damaged",
        "empty.md": "empty",
        "latin.txt": "bad_encoding",
        "latin.html": "bad_encoding",
        "nul.txt": "no_text",
        "scan.pdf": "no_text_layer",
        "tower.md": "same_text",
    }
    assert all(one.detail for one in rejected.values())


@pytest.mark.slow
@needs_parsers
def test_a_parser_that_dies_or_hangs_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deadly = "import json, os, sys, time\nfor line in sys.stdin:\n    path = os.path.basename(json.loads(line)[0])\n"
    deadly += "    'die' in path and os._exit(139)\n    'hang' in path and time.sleep(60)\n"
    deadly += "    print(json.dumps({'text': 'It is fine.', 'pages': []}), flush=True)\n"
    (tmp_path / "parser.py").write_text(deadly, "utf-8")
    started = lambda: subprocess.Popen(  # noqa: E731
        [sys.executable, str(tmp_path / "parser.py")], stdin=-1, stdout=-1
    )
    monkeypatch.setattr(parsing, "_started", started)
    monkeypatch.setattr(parsing, "_TIMEOUT_S", 5.0)
    for name in ("1-die", "2-hang", "3-good"):
        (tmp_path / f"{name}.pdf").write_bytes(b"")
    documents, rejected = read(tmp_path / "*.pdf")
    assert list(documents) == ["3-good.pdf"]
    assert {name: one.reason for name, one in rejected.items()} == {"1-die.pdf": "damaged", "2-hang.pdf": "too_slow"}


@needs_parsers
def test_where_memory_is_limited_already_files_are_parsed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>The oven is hot.</p>", "utf-8")
    command = shlex.join([sys.executable, "-m", "socratune.documents.parsing"])
    limited = ["sh", "-c", f"ulimit -v {parsing._MEMORY_BYTES // 2048} && exec {command}"]  # kB: half of our own limit
    request = json.dumps([str(tmp_path / "a.html"), ".html"])
    done = subprocess.run(limited, input=request, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["text"] == "The oven is hot."


def test_what_a_source_means(tmp_path: Path) -> None:
    for name in ("docs/a.md", "docs/deep/b.md", "docs/c.exe"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("Some text.", "utf-8")
    names = lambda source: [name for name, _ in files_of(str(tmp_path / source))]  # noqa: E731
    assert names("docs") == ["a.md", "deep/b.md"]
    assert names("docs/a.md") == ["a.md"]
    assert names("docs/**/*.md") == ["a.md", "deep/b.md"]
    for wrong in ("nowhere", "docs/*.pdf"):
        with pytest.raises(UserError, match="Known endings"):
            files_of(str(tmp_path / wrong))


def test_a_missing_parser_is_said_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parsing.LIBRARIES, ".pdf", ("no_such_parser",))
    (tmp_path / "a.pdf").write_bytes(pdf("x"))
    with pytest.raises(UserError, match=r"socratune\[documents\]"):
        files_of(str(tmp_path))


def test_documents_are_json(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "T.", "tags": ["x", {"y": None}]}) + "\n", "utf-8")
    documents, _ = read(tmp_path / "a.jsonl")
    assert documents["a.jsonl/line-1"].metadata == {"tags": ["x", {"y": None}]}
