"""Correct a file of rejected rows, as a person would in a spreadsheet.

    python3 correct.py rejects.csv corrected.csv

Phones that do not exist are emptied, "(at)" becomes "@", and rows that name nobody are dropped.
The first three columns say where a row came from and why it was rejected; they may stay, since an
import ignores them.
"""

import csv
import sys
from pathlib import Path


def corrected(row: dict[str, str]) -> dict[str, str]:
    if row["_reason"] == "invalid_phone":
        row[row["_column"]] = ""
    if row["_reason"] == "invalid_email":
        row[row["_column"]] = row[row["_column"]].replace("(at)", "@")
    return row


def main(source: str, target: str) -> None:
    with Path(source).open(newline="", encoding="utf-8-sig") as rejects:
        rows = csv.DictReader(rejects)
        good = [corrected(row) for row in rows if row["_reason"] != "missing_key"]
        header = rows.fieldnames or []
    with Path(target).open("w", newline="", encoding="utf-8") as output:
        writer = csv.DictWriter(output, header)
        writer.writeheader()
        writer.writerows(good)


if __name__ == "__main__":
    main(*sys.argv[1:])
