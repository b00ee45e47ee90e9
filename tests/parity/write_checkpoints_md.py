"""The table of proofs in docs/checkpoints.md, from what the parity tests found.

    python tests/parity/write_checkpoints_md.py PROOFS

PROOFS: the folder that ATROUS_PROOFS named while the tests ran (`make checkpoints` does both).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"
BEGIN, END = "<!-- proofs -->", "<!-- end of proofs -->"


def table(proofs: list[dict[str, Any]], sources: list[str]) -> str:
    """One row for each source and what it was compared with: its models, and the largest difference of any."""
    lines = ["| source | compared with | cases | largest difference | models |", "|---|---|---|---|---|"]
    for source in sources:
        of_source = [proof for proof in proofs if proof["source"] == source]
        for against in dict.fromkeys(proof["against"] for proof in of_source):
            rows = [proof for proof in of_source if proof["against"] == against]
            largest = max(rows, key=lambda proof: proof["difference"])
            models = "; ".join(sorted(proof["model"] for proof in rows))
            lines.append(f"| `{source}` | {against} | {len(rows)} | {largest['difference']:.1e} | {models} |")
        if not of_source:
            lines.append(f"| `{source}` | **nothing: not proved** | 0 | | |")
    return "\n".join(lines)


def replace_table(page: str, new: str) -> str:
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{new}\n{END}{rest.split(END)[1]}"


def main(folder: Path) -> None:
    from atrous.importers import SOURCES

    proofs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    unknown = {proof["source"] for proof in proofs} - set(SOURCES)
    if unknown:
        sys.exit(f"proofs of sources that do not exist: {unknown}")
    PAGE.write_text(
        replace_table(PAGE.read_text(encoding="utf-8"), table(proofs, list(SOURCES))), encoding="utf-8"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
