"""The page: one HTML file that loads nothing, light or dark as its reader's machine is."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.labels import Labels
from atrous.errors import InputError
from atrous.replacing import write_text
from atrous.report import charts
from atrous.report.measure import Measured, Shot, error_map
from atrous.report.source import Source
from atrous.version import __version__
from atrous.visualize import in_palette, overlay

Part = tuple[Source, Measured]

SHOWN = 12  # pictures of each kind
LIMIT = 5_000_000  # bytes of the page
QUALITIES = (78, 60, 40, 20)  # of the JPEGs, until the page is below that

STYLE = """
:root{--bg:#fbfbf9;--card:#fff;--ink:#1d1f23;--soft:#63676f;--rule:#e3e4e0;--track:#ecedea;--s0:#0072b2;--s1:#d55e00;--on:#fff}
@media (prefers-color-scheme:dark){:root{--bg:#15171a;--card:#1d2024;--ink:#e9eaec;--soft:#9aa0a9;--rule:#30343a;
--track:#2a2e34;--s0:#56b4e9;--s1:#e69f00;--on:#0d1013}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1100px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:30px;line-height:1.2;margin:0 0 4px;overflow-wrap:anywhere}h2{font-size:20px;margin:44px 0 4px}
h3{font-size:16px;margin:22px 0 8px}p{margin:4px 0 12px}
.soft,figcaption{color:var(--soft);font-size:14px}p,li,dd{overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:20px 0 8px}
.card,.block{background:var(--card);border:1px solid var(--rule);border-radius:12px;padding:14px 16px}
.card b{display:block;font-size:28px;line-height:1.25;font-variant-numeric:tabular-nums}.card b+b{font-size:28px}
.card.first b{font-size:34px}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:12px}
.key{display:inline-block;width:11px;height:11px;border-radius:3px;margin:0 6px 0 0}
.key.s0,.bar.s0{background:var(--s0)}.key.s1,.bar.s1{background:var(--s1)}
b.s0{color:var(--s0)}b.s1{color:var(--s1)}
.chart{width:100%;max-width:640px;height:auto;display:block}svg text{fill:var(--soft);font:12px system-ui,sans-serif}
.grid{stroke:var(--rule)}.line{fill:none;stroke-width:2;stroke-linejoin:round}.line.s0{stroke:var(--s0)}.line.s1{stroke:var(--s1)}
.dot.s0{fill:var(--s0)}.dot.s1{fill:var(--s1)}
.row{display:grid;grid-template-columns:minmax(80px,150px) 1fr;gap:10px;align-items:center;margin:5px 0}
.row>div{display:grid;grid-template-columns:1fr 54px;gap:2px 8px;align-items:center}
.name{overflow-wrap:anywhere;line-height:1.2;font-size:14px}.track{background:var(--track);border-radius:4px;height:12px;overflow:hidden}
.bar{display:block;height:100%}.figure{font-size:13px;text-align:right;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}.matrix .hit{fill:var(--s0)}.matrix .miss{fill:var(--s1)}.matrix text{fill:var(--ink)}
.matrix .in{font-size:11px}.matrix .strong{fill:var(--on)}
.shot{margin:0 0 14px}.strip{display:grid;gap:6px;margin-bottom:4px}
.strip img{width:100%;height:auto;display:block;border-radius:6px}
.shots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,480px),1fr));gap:6px 18px}
figcaption b{color:var(--ink);font-weight:600}
.legend span{display:inline-block;margin:0 14px 2px 0;font-size:14px}.legend i{display:inline-block;
width:12px;height:12px;
border-radius:3px;margin-right:6px;border:1px solid var(--rule)}
table{border-collapse:collapse;font-size:14px}
td,th{text-align:left;padding:4px 18px 4px 0;border-bottom:1px solid var(--rule);
vertical-align:top;overflow-wrap:anywhere}th{font-weight:500;color:var(--soft)}
pre{overflow-x:auto;font:13px/1.5 ui-monospace,Menlo,Consolas,monospace;margin:8px 0 0}summary{cursor:pointer}
@media (max-width:520px){main{padding:20px 14px 48px}h1{font-size:24px}.strip{grid-template-columns:1fr 1fr!important}
.cards{grid-template-columns:1fr 1fr}.card b,.card.first b{font-size:24px}}
"""


def page(parts: Sequence[Part], labels: Labels, about: str) -> str:
    """The HTML of one model or two side by side. `about`: the data, in a few words.

    The pictures' quality goes down until all is below `LIMIT` bytes. InputError where even that is too much.
    """
    for quality in QUALITIES:
        text = _page(parts, labels, about, quality)
        if len(text.encode()) < LIMIT:
            return text
    raise InputError(f"the page would be larger than {LIMIT / 1e6:g} MB")


def write_page(path: Path, text: str) -> None:
    """Into a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _page(parts: Sequence[Part], labels: Labels, about: str, quality: int) -> str:
    names = [source.name for source, _ in parts]
    title = " and ".join(names)
    sections = [
        _head(parts, title, about),
        _classes(parts, labels),
        _confusions(parts, labels),
        _boundaries(parts),
        _learning(parts),
        _pictures(parts, labels, quality),
        _cost(parts),
        _recipes(parts),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"{''.join(sections)}</main></body></html>\n"
    )


def _head(parts: Sequence[Part], title: str, about: str) -> str:
    def card(what: str, value: Callable[[Measured], float | None], first: bool = False) -> str:
        figures = "".join(
            f"<b{f' class=s{i}' if len(parts) > 1 else ''}>{_hundredths(value(measured))}</b>"
            for i, (_, measured) in enumerate(parts)
        )
        return f'<div class="card{" first" if first else ""}">{figures}<span class="soft">{what}</span></div>'

    notes = [note for source, _ in parts if (note := source.unfinished)]
    return (
        f"<h1>{escape(title)}</h1>"
        f'<p class="soft">{escape(about)}</p>'
        + _keys(parts)
        + '<div class="cards">'
        + card("mean IoU, %", lambda m: m.metrics.miou, True)
        + card("pixel accuracy, %", lambda m: m.metrics.pixel_accuracy)
        + card("mean accuracy, %", lambda m: m.metrics.mean_accuracy)
        + card("frequency-weighted IoU, %", lambda m: m.metrics.frequency_weighted_iou)
        + card("Boundary IoU, %", lambda m: m.metrics.boundary_miou)
        + "</div>"
        + "".join(
            f'<p class="soft">Protocol{f" of {escape(source.name)}" if len(parts) > 1 else ""}: '
            f"{escape(measured.protocol)}; at full label resolution, void pixels not counted, "
            f"one confusion matrix over all {measured.metrics.pictures} pictures.</p>"
            for source, measured in parts
        )
        + "".join(f"<p><b>{escape(note)}.</b></p>" for note in notes)
    )


def _keys(parts: Sequence[Part]) -> str:
    if len(parts) == 1:
        return ""
    return "".join(
        f'<p><span class="key s{i}"></span>{"AB"[i]}: {escape(source.name)}</p>'
        for i, (source, _) in enumerate(parts)
    )


def _classes(parts: Sequence[Part], labels: Labels) -> str:
    order = np.argsort([-(iou or 0) for iou in parts[0][1].metrics.per_class_iou], kind="stable")
    columns = [[measured.metrics.per_class_iou[i] for i in order] for _, measured in parts]
    drawn = charts.bars([labels.names[i] for i in order], columns)
    return f'<h2>Classes</h2><p class="soft">IoU of each class, %</p><div class="block">{drawn}</div>'


def _confusions(parts: Sequence[Part], labels: Labels) -> str:
    text = '<h2>Confusions</h2><p class="soft">Rows are true classes, columns predictions; % of the row.</p>'
    for source, measured in parts:
        words = charts.largest_confusions(measured.metrics.confusion, labels.names)
        heading = f"<h3>{escape(source.name)}</h3>" if len(parts) > 1 else ""
        listed = "".join(f"<li>{escape(line)}</li>" for line in words)
        text += f"{heading}<ul>{listed}</ul>" if words else f"{heading}<p>None.</p>"
        text += f'<div class="block">{charts.matrix(measured.metrics.confusion, labels.names)}</div>'
    return text


def _boundaries(parts: Sequence[Part]) -> str:
    series = [
        (source.name, [(float(w), 100 * miou) for w, miou in measured.metrics.trimap_miou.items()])
        for source, measured in parts
    ]
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{', '.join(f'{x:g} px {y:.1f}' for x, y in points)}</td></tr>"
        for name, points in series
    )
    return (
        "<h2>Near boundaries</h2>"
        '<p class="soft">Mean IoU, %, of the pixels that are at most so many pixels from a change of the true label. '
        "Boundary IoU, above, compares rims of 2 % of the diagonal.</p>"
        f'<div class="block">{charts.lines(series, "width of the band, pixels", True)}<table>{rows}</table></div>'
    )


def _learning(parts: Sequence[Part]) -> str:
    drawn = []
    for column, what, factor in (
        ("loss", "training loss", 1),
        ("miou", "mean IoU on the validation part, %", 100),
    ):
        series = [
            (source.name, [(row["iteration"], factor * row[column]) for row in source.log if column in row])
            for source, _ in parts
        ]
        if chart := charts.lines(series, "iteration"):
            drawn.append(f'<div class="block"><p class="soft">{what}</p>{chart}</div>')
    if not drawn:
        return '<h2>Learning</h2><p class="soft">There is no log.csv beside the checkpoint.</p>'
    return f'<h2>Learning</h2><div class="two">{"".join(drawn)}</div>'


def picked(scores: Sequence[float], shown: int = SHOWN) -> list[list[int]]:
    """Places of the best, those around the median, and the worst; none twice where there are few."""
    order = [int(i) for i in np.argsort(scores, kind="stable")][::-1]
    each = min(shown, -(-len(order) // 3))
    best, worst = order[:each], order[each:][::-1][:each]
    rest = order[each : len(order) - len(worst)]
    start = max(0, (len(rest) - each) // 2)
    return [best, rest[start : start + each], worst]


def _pictures(parts: Sequence[Part], labels: Labels, quality: int) -> str:
    first = parts[0][1].shots
    if len(parts) == 1:
        scores = [shot.miou for shot in first]
        titles = ["Best", "Around the median", "Worst"]
        words = "By the mean IoU of the picture alone, over the classes in it"
        columns = "photo, truth, prediction, errors"
    else:
        scores = [b.miou - a.miou for a, b in zip(first, parts[1][1].shots, strict=True)]
        titles = ["B gains most", "Around the median", "B loses most"]
        words = "By the difference of the mean IoU of the picture alone, B minus A"
        columns = "photo, truth, A, B, errors of A, errors of B"
    shown = in_palette(labels, "safe")
    text = (
        f'<h2>Pictures</h2><p class="soft">{words}. From left to right: {columns} '
        "(wrong pixels in orange, void white).</p>"
    )
    legend = "".join(
        f'<span><i style="background:rgb{colour}"></i>{escape(name)}</span>'
        for name, colour in zip(shown.names, shown.palette, strict=True)
    )
    text += f'<div class="legend">{legend}</div>'
    for title, places in zip(titles, picked(scores), strict=True):
        if places:
            figures = "".join(
                _figure([measured.shots[i] for _, measured in parts], shown, quality) for i in places
            )
            text += f'<h3>{title}</h3><div class="shots">{figures}</div>'
    return text


def _figure(shots: Sequence[Shot], labels: Labels, quality: int) -> str:
    photo, truth, _ = shots[0].arrays()
    predictions = [shot.arrays()[2] for shot in shots]
    cells = [photo, overlay(photo, truth, labels, 0.65)]
    cells += [overlay(photo, each, labels, 0.65) for each in predictions]
    cells += [error_map(photo, truth, each, labels.ignore_index) for each in predictions]
    images = "".join(f'<img alt="" src="{_data_uri(cell, quality)}">' for cell in cells)
    told = " and ".join(f"{100 * shot.miou:.1f}" for shot in shots)
    columns = len(cells) if len(shots) == 1 else 3
    return (
        f'<figure class="shot"><div class="strip" style="grid-template-columns:repeat({columns},1fr)">{images}</div>'
        f"<figcaption><b>{told}</b> {escape(shots[0].name)}</figcaption></figure>"
    )


def _data_uri(picture: NDArray[np.uint8], quality: int) -> str:
    target = io.BytesIO()
    Image.fromarray(picture).save(target, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(target.getvalue()).decode()}"


def _cost(parts: Sequence[Part]) -> str:
    rows: list[tuple[str, list[str]]] = [("parameters", [f"{m.parameters / 1e6:.2f} M" for _, m in parts])]
    rows.append(("picture", [f"{m.size[1]}x{m.size[0]} pixels" for _, m in parts]))
    rows.append(
        (
            "multiply-adds of it",
            ["not known" if m.multiply_adds is None else f"{m.multiply_adds / 1e9:.2f} B" for _, m in parts],
        )
    )
    rows.append(("time of it", [f"{m.milliseconds:.0f} ms on {_machine(m)}" for _, m in parts]))
    rows.append(
        (
            "peak memory of the measurement",
            [f"{m.memory / 1e9:.2f} GB" if m.memory else "not known" for _, m in parts],
        )
    )
    rows.append(("file", [f"{Path(s.checkpoint).stat().st_size / 1e6:.1f} MB" for s, _ in parts]))
    return (
        f"<h2>Speed and memory</h2><div class='block wide'>{_table(rows, parts)}</div>"
        '<p class="soft">Time: the median of five predictions by the protocol, '
        "from the picture in memory to its labels.</p>"
    )


def _machine(measured: Measured) -> str:
    return measured.device + (f", {measured.threads} threads" if measured.device == "cpu" else "")


def _table(rows: Sequence[tuple[str, Sequence[str]]], parts: Sequence[Part]) -> str:
    head = "".join(f"<th>{escape(source.name)}</th>" for source, _ in parts) if len(parts) > 1 else ""
    body = "".join(
        f"<tr><th>{escape(what)}</th>{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>"
        for what, values in rows
    )
    return f"<table>{f'<tr><th></th>{head}</tr>' if head else ''}{body}</table>"


def _recipes(parts: Sequence[Part]) -> str:
    text = "<h2>Recipe</h2>"
    recipes = [source.recipe for source, _ in parts]
    if len(parts) == 2 and all(recipes):
        keys = [key for key in {**recipes[0], **recipes[1]} if recipes[0].get(key) != recipes[1].get(key)]
        rows = [(key, [_plain(recipe.get(key)) for recipe in recipes]) for key in keys]
        text += f"<p>What differs:</p><div class='block wide'>{_table(rows, parts)}</div>" if rows else ""
    for source, _ in parts:
        settings = "\n".join(f"{key}: {_plain(value)}" for key, value in source.recipe.items())
        body = f"<pre>{escape(settings)}</pre>" if settings else "<p>The checkpoint brings none.</p>"
        text += f"<details class='block'><summary>{escape(source.name)}, in full</summary>{body}</details>"
    return text + f'<p class="soft">Written by atrous {escape(__version__)}.</p>'


def _plain(value: Any) -> str:
    return "none" if value is None else str(value)


def _hundredths(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
