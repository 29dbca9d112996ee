"""Tables of edits: CSV with any common separator, and JSON lines.

Every cell is used or rejected with file and line; nothing is truncated or guessed.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from kontext import options
from kontext.engine import sizes
from kontext.engine.requests import (
    MAX_CONTEXTS,
    MAX_SEED,
    EditOptions,
    EditRequest,
    check_prompt,
)
from kontext.errors import BadRequest, NotFound
from kontext.loras import parse as parse_loras
from kontext.pictures import looks_like_picture
from kontext.values import flag, one_of, real_number, whole_number

OPTIONS = options.offered("table")
WHOLE = {option.name: option.whole_range for option in OPTIONS if option.type == "integer"}
NUMBERS = {option.name: option.range for option in OPTIONS if option.type == "number"}
CHOICES = {option.name: option.choices for option in OPTIONS if option.type == "choice"}
TEXTS = ("prompt", "output", *(option.name for option in OPTIONS if option.type == "text"))
FLAGS = tuple(option.name for option in OPTIONS if option.kind == "flag")
FILES = ("picture", *(option.name for option in OPTIONS if option.type == "picture"))
COLUMNS = ("picture", "prompt", "output", *(option.name for option in OPTIONS))
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")  # as spreadsheets and people write them
SEPARATORS = (",", ";", "\t")
JSON_ENDINGS, CSV_ENDINGS = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv", ".txt")


def read(path: Path) -> list[tuple[int, dict[str, object]]]:
    """(line, values by column) of each non-empty row; values as `Editor.edit` accepts them.

    Pictures are paths, relative to the table. Raises NotFound, BadRequest.
    """
    found = []
    for line, row in _rows(path):
        row = {key: value for key, value in row.items() if not _blank(value)}
        if not row:
            continue
        unknown = sorted(set(row) - set(COLUMNS))
        if unknown:
            raise BadRequest(f"{path}: unknown column {unknown[0]!r}; known columns are {', '.join(COLUMNS)}")
        try:
            found.append((line, _typed(row, path.parent)))
        except BadRequest as error:
            raise BadRequest(f"{path}, line {line}: {error}") from None
    return found


def _blank(value: object) -> bool:
    return value is None or value == [] or isinstance(value, str) and not value.strip()


def _rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    suffix = path.suffix.lower()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path}: no such folder or table") from None
    except OSError as error:
        raise BadRequest(f"{path}: cannot be read ({error.strerror})") from None
    picture = f"{path}: a picture, not a table; kontext edit edits it, kontext batch all pictures of a folder"
    if suffix not in (*JSON_ENDINGS, *CSV_ENDINGS) and looks_like_picture(path):
        raise BadRequest(picture)
    try:
        text = _decoded(path, data)
    except BadRequest:
        if looks_like_picture(path):
            raise BadRequest(picture) from None
        raise
    if suffix in JSON_ENDINGS or suffix not in CSV_ENDINGS and text.lstrip()[:1] in ("{", "["):
        return _json_rows(path, text)
    return _csv_rows(path, text)


def _decoded(path: Path, data: bytes) -> str:
    """Decode UTF-8, UTF-16 or UTF-32, detected by the byte order mark or by the zero bytes."""
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        encoding = "utf-32"  # its mark begins like that of UTF-16
    elif data[:4].count(0) == 3:
        encoding = "utf-32-be" if data[0] == 0 else "utf-32-le"
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif data[:2].count(0) == 1:
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    else:
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        name = encoding[:6].upper().removesuffix("-")
        raise BadRequest(
            f"{path}, line {line}: the text is not {name}; save the table as CSV UTF-8"
        ) from None


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    for line, option in enumerate(text.split("\n"), start=1):
        if not option.strip():
            continue
        try:
            row = json.loads(option, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"{path}, line {line}: not one JSON object a line ({error})") from None
        if type(row) is not dict:
            raise BadRequest(f'{path}, line {line}: not an object, such as {{"picture": "a.png"}}')
        yield line, row


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("duplicate key")
    return row


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    skipped = 0
    declared = re.match(r"sep=(.)\r?\n", text, re.IGNORECASE)  # written by Excel
    if declared:
        text, skipped = text[declared.end() :], 1
    separator = declared[1] if declared else _separator(text)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=separator != "\t"
    )
    names: list[str] | None = None
    while True:
        line = reader.line_num + 1 + skipped
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadRequest(
                f"{path}, line {line}: cannot be read as CSV ({error}); is a quotation mark missing?"
            ) from None
        if all(_blank(cell) for cell in cells):
            continue
        if names is None:
            names = [cell.strip().casefold() for cell in cells]
            twice = [name for name in names if name and names.count(name) > 1]
            if twice:
                raise BadRequest(f"{path}, line {line}: duplicate column {twice[0]!r}")
            unknown = [name for name in names if name and name not in COLUMNS]
            if unknown:
                raise BadRequest(
                    f"{path}: unknown column {unknown[0]!r}; known columns are {', '.join(COLUMNS)}"
                )
            continue
        for position, cell in enumerate(cells):
            if not _blank(cell) and (position >= len(names) or not names[position]):
                raise BadRequest(
                    f"{path}, line {line}: the value {cell[:40]!r} is in column {position + 1}, which has "
                    "no name; quote text that contains separators"
                )
        yield line, {name: cell.strip() for name, cell in zip(names, cells) if name}


def _separator(text: str) -> str:
    """The separator with which the first non-empty line has the most known column names."""
    first = next((line for line in text.splitlines() if line.strip(' ,;\t"')), "")

    def names(separator: str) -> int:
        return sum(cell.strip(' "').casefold() in COLUMNS for cell in first.split(separator))

    return max(SEPARATORS, key=names)


def _typed(row: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Convert cells to the types the editor accepts. Raises BadRequest."""
    values = dict(row)
    for key in (*TEXTS, *FILES):
        if key in row and not isinstance(row[key], str):
            raise BadRequest(f"{key} must be text, got {row[key]!r}")
    for key, (low, high) in WHOLE.items():
        if key in row:
            values[key] = whole_number(key, _whole(key, row[key]), low, high)
    for key, (least, most) in NUMBERS.items():
        if key in row:
            values[key] = real_number(key, _decimal(row[key]), least, most)
    for key, choices in CHOICES.items():
        if key in row:
            values[key] = one_of(key, row[key], choices)
    for key in FLAGS:
        if key in row:
            values[key] = flag(key, _boolean(row[key]))
    texts = {key: row[key] for key in TEXTS if key in row and key not in ("prompt", "output")}
    EditRequest(prompt="any", **cast("EditOptions", texts))
    if "prompt" in row:
        check_prompt(row["prompt"])
    if "size" in row:
        sizes.parse(str(row["size"]))
    if "box" in row:
        box = row["box"] if isinstance(row["box"], list) else re.split(r"[\s,;]+", str(row["box"]).strip())
        if len(box) != 4:
            raise BadRequest(f"box must be X,Y,W,H, got {row['box']!r}")
        values["box"] = [whole_number("box", _whole("box", option), 0, sizes.MAX_SIDE) for option in box]
    if "references" in row:
        references = row["references"]
        names = references if isinstance(references, list) else str(references).split("|")
        if not all(isinstance(name, str) and name.strip() for name in names):
            raise BadRequest(f"references must be picture paths, got {references!r}")
        if len(names) >= MAX_CONTEXTS:
            raise BadRequest(f"references must be at most {MAX_CONTEXTS - 1}, got {len(names)}")
        values["references"] = [str((folder / name.strip()).resolve()) for name in names]
    if "loras" in row:
        values["loras"] = _loras(row["loras"], folder)
    for key in FILES:
        if key in row:
            name = str(row[key])
            if "://" in name:
                raise BadRequest(f"{key} {name!r} is a URL; download the picture and name the file")
            if "\0" in name:
                raise BadRequest(f"{key} {name!r} is not a valid file name")
            values[key] = str((folder / name).resolve())
    return values


def _loras(value: object, folder: Path) -> list[dict[str, object]]:
    """LoRAs as plain data; paths are relative to the table. Raises BadRequest."""
    items = value.split("|") if isinstance(value, str) else value if isinstance(value, list) else [value]
    found = []
    for lora in parse_loras([item.strip() if isinstance(item, str) else item for item in items]):
        path = folder / (lora.path or lora.name or "")
        is_file = lora.path is not None or path.exists()
        found.append(replace(lora, name=None, path=str(path.resolve())) if is_file else lora)
    return [lora.to_json() for lora in found]


def _whole(name: str, value: object) -> object:
    """A cell as an integer if it is one: spreadsheets write 7 as 7.0, some as 7,0."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_SEED:
        return int(value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if re.fullmatch(r"[+-]?\d{1,20}([.,]0{1,2})?", text, re.ASCII):
        return int(re.split("[.,]", text)[0])
    if re.fullmatch(r"[+-]?\d{1,3}([., ]000)+", text, re.ASCII):
        raise BadRequest(f"{name} {value!r} is ambiguous; write it without a separator")
    if re.fullmatch(r"[+-]?\d+([.,]\d+)?[eE][+-]?\d+", text, re.ASCII):
        raise BadRequest(f"{name} {value!r} may have lost digits; format the column as whole numbers")
    return value


def _boolean(value: object) -> object:
    """A cell as True or False, where it is one of the usual words for it."""
    word = str(value).strip().casefold() if isinstance(value, str | int) else None
    return True if word in TRUE else False if word in FALSE else value


def _decimal(value: object) -> object:
    """A cell as a number if it is one, with a decimal point or comma."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,9}([.,]\d{0,9})?", value.strip(), re.ASCII):
        return float(value.strip().replace(",", "."))
    return value
