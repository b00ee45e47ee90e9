"""What stands in a drawn scene: buildings, trees, fences, poles, cars and people."""

from __future__ import annotations

import numpy as np

from atrous.data.scene_canvas import (
    AUTUMN,
    BRICKS,
    BROWNS,
    BUILDING,
    CAR,
    CARS,
    FENCE,
    FENCES,
    GREENS,
    GREYS,
    PALES,
    PERSON,
    POLE,
    POLES,
    RGB,
    SHIRTS,
    TREE,
    TROUSERS,
    WEATHERS,
    Canvas,
    Point,
    mix,
    shift,
)
from atrous.data.scene_land import Lane


def paint_skyline(canvas: Canvas, horizon: float, weather: int, lane: Lane) -> None:
    """Buildings and woods behind everything else."""
    rng, unit = canvas.rng, canvas.unit
    haze = WEATHERS[weather][1]
    x = rng.uniform(-30, 20) * unit
    while x < canvas.width:
        kind = rng.random()
        wide = rng.uniform(18, 44) * unit
        base = horizon + rng.uniform(1, 9) * unit
        if kind < 0.6:
            paint_building(canvas, x, base, wide, rng.uniform(22, 58) * unit, haze)
        elif kind < 0.8:
            paint_tree(canvas, x + wide / 2, base, rng.uniform(22, 36) * unit)
            wide *= 0.8
        x += wide + (rng.uniform(0, 18) * unit if rng.random() < 0.5 else 0)


def paint_building(canvas: Canvas, x: float, base: float, wide: float, tall: float, haze: RGB) -> None:
    rng, unit = canvas.rng, canvas.unit
    wall = mix(canvas.pick([*BRICKS, *GREYS, *PALES, *BROWNS, (112, 130, 150)]), haze, rng.uniform(0, 0.2))
    top = base - tall
    canvas.box(x, top, x + wide, base, wall, BUILDING)
    if rng.random() < 0.45:  # gable
        roof = canvas.pick([*BRICKS, *GREYS, (72, 64, 66)])
        ridge = top - rng.uniform(6, 12) * unit
        points = [
            (x - 1.5 * unit, top),
            (x + wide * 0.2, ridge),
            (x + wide * 0.8, ridge),
            (x + wide + 1.5 * unit, top),
        ]
        canvas.polygon(points, roof, BUILDING)
    else:
        canvas.box(x - unit, top, x + wide + unit, top + 2 * unit, shift(wall, -28), BUILDING)
    side = wide * rng.uniform(0.12, 0.3)
    if rng.random() < 0.5:
        canvas.box(x + wide - side, top, x + wide, base, (0, 0, 20, 60))
        wide -= side
    step_x, step_y = rng.uniform(6, 9) * unit, rng.uniform(8, 11) * unit
    pane = canvas.pick([(58, 70, 86), (40, 46, 58), (150, 176, 196)])
    columns, rows = max(1, int((wide - 2 * unit) / step_x)), max(1, int((tall - 5 * unit) / step_y))
    gap_x, gap_y = wide / columns, (tall - 4 * unit) / rows
    sill = shift(wall, 30)
    lit = rng.random((rows, columns)) < rng.choice([0.02, 0.25])
    for row in range(rows):
        for column in range(columns):
            left, upper = x + (column + 0.25) * gap_x, top + 4 * unit + (row + 0.12) * gap_y
            glass = (248, 214, 136) if lit[row, column] else pane
            canvas.box(left, upper, left + gap_x * 0.5, upper + gap_y * 0.55, glass)
            canvas.box(left, upper + gap_y * 0.55, left + gap_x * 0.5, upper + gap_y * 0.62, sill)


def paint_tree(canvas: Canvas, x: float, base: float, tall: float) -> None:
    rng, unit = canvas.rng, canvas.unit
    leaf = canvas.pick([*GREENS, *GREENS, *GREENS, *AUTUMN])
    canvas.shadow(x + tall * 0.1, base, tall * 0.35, tall * 0.07)
    trunk = max(3.2 * unit, tall * 0.08)
    canvas.box(x - trunk / 2, base - tall * 0.45, x + trunk / 2, base, canvas.pick(BROWNS), TREE)
    if rng.random() < 0.25:  # conifer
        for level in range(3):
            y, half = base - tall * (0.2 + 0.24 * level), tall * (0.3 - 0.07 * level)
            points = [(x - half, y), (x, y - tall * 0.42), (x + half, y)]
            canvas.polygon(points, shift(leaf, 8 * level - 12), TREE)
        return
    for number in range(9):
        angle = rng.random() * 2 - 1
        rise = rng.uniform(-0.22, 0.24)
        radius = tall * rng.uniform(0.13, 0.21)
        colour = shift(leaf, float(26 * rise / 0.24 * 0.8 + rng.uniform(-8, 8)))
        cx, cy = x + angle * tall * 0.24, base - tall * (0.64 + rise * (1 - abs(angle)))
        canvas.ellipse(cx, cy, radius * 1.1, radius, colour if number else leaf, TREE)


def paint_fence(canvas: Canvas, x0: float, x1: float, base: float, tall: float) -> None:
    rng, unit = canvas.rng, canvas.unit
    colour = canvas.pick(FENCES)
    canvas.label.polygon([(x0, base - tall), (x1, base - tall), (x1, base), (x0, base)], fill=FENCE)
    dark = shift(colour, -22)
    for share in (0.2, 0.68):
        canvas.box(x0, base - tall * (1 - share), x1, base - tall * (1 - share) + 1.8 * unit, dark)
    step = rng.uniform(4, 6) * unit
    pointed = rng.random() < 0.5
    for x in np.arange(x0, x1 - 0.4 * step, step).tolist():
        points = [(x, base), (x, base - tall), (x + 0.74 * step, base - tall), (x + 0.74 * step, base)]
        if pointed:
            points.insert(2, (x + 0.37 * step, base - tall - 1.5 * unit))
        canvas.polygon(points, colour)


def paint_pole(canvas: Canvas, x: float, base: float, tall: float) -> None:
    rng, unit = canvas.rng, canvas.unit
    half = max(4 * unit, tall * 0.055)
    colour = canvas.pick(POLES)
    canvas.shadow(x + 6 * unit, base, 9 * unit, 1.3 * unit)
    canvas.box(x - half, base - tall, x + half, base, colour, POLE)
    canvas.box(x - half, base - tall, x - half * 0.3, base, shift(colour, 26))
    kind = rng.random()
    top = base - tall
    if kind < 0.4:  # street lamp
        reach = rng.choice([-1.0, 1.0]) * rng.uniform(9, 15) * unit
        canvas.box(min(x, x + reach), top, max(x, x + reach), top + 4.6 * unit, colour, POLE)
        canvas.ellipse(x + reach, top + 2.2 * unit, 6 * unit, 4 * unit, (244, 232, 190), POLE)
    elif kind < 0.75:  # sign
        radius = rng.uniform(8, 10.5) * unit
        face, rim = (
            canvas.pick([(232, 232, 228), (44, 78, 148), (206, 164, 52)]),
            canvas.pick([(184, 40, 40), (230, 230, 226)]),
        )
        if rng.random() < 0.5:
            canvas.ellipse(x, top, radius, radius, rim, POLE)
            canvas.ellipse(x, top, radius * 0.68, radius * 0.68, face)
        else:
            for size, paint in ((1.25, rim), (0.75, face)):
                points = [
                    (x - radius * size, top + radius * size * 0.7),
                    (x, top - radius * size),
                    (x + radius * size, top + radius * size * 0.7),
                ]
                canvas.polygon(points, paint, POLE)
    else:  # mast with cross-arms; its wires belong to what is behind them
        for drop in (3, 11):
            canvas.box(x - 8 * unit, top + drop * unit, x + 8 * unit, top + (drop + 4.6) * unit, colour, POLE)
            for end in (-7, 7):
                sag = [
                    (x + end * unit + s * canvas.width, top + drop * unit + 10 * unit * (s - s * s))
                    for s in (-1.0, -0.5, 0.0, 0.5, 1.0)
                ]
                canvas.glaze.line(sag, fill=(40, 42, 48, 150), width=1)


def paint_car(canvas: Canvas, x: float, base: float, tall: float, side: bool) -> None:
    """tall: height of the car; seen from the side or from behind."""
    rng = canvas.rng
    colour = canvas.pick(CARS)
    glass, tyre = canvas.pick([(52, 62, 76), (120, 146, 164)]), (26, 26, 30)
    dark = shift(colour, -34)
    if side:
        long, way = tall * rng.uniform(2.3, 2.9), float(rng.choice([-1.0, 1.0]))

        def at(u: float, v: float) -> Point:
            return x + way * (u - 0.5) * long, base - v * tall

        canvas.shadow(x, base - 0.02 * tall, long * 0.54, tall * 0.12)
        roof = rng.uniform(0.6, 0.78)
        shape = [
            (0, 0.2),
            (0.01, 0.52),
            (0.16, 0.62),
            (0.3, 1),
            (roof, 1),
            (roof + 0.12, 0.6),
            (0.99, 0.5),
            (1, 0.2),
        ]
        canvas.polygon([at(*p) for p in shape], colour, CAR)
        canvas.polygon([at(*p) for p in [(0.22, 0.62), (0.33, 0.93), (0.48, 0.93), (0.48, 0.62)]], glass)
        canvas.polygon(
            [at(*p) for p in [(0.51, 0.62), (0.51, 0.93), (roof - 0.02, 0.93), (roof + 0.07, 0.62)]], glass
        )
        canvas.polygon([at(*p) for p in [(0, 0.2), (0, 0.32), (1, 0.32), (1, 0.2)]], dark)
        for hub in (0.2, 0.8):
            cx, cy = at(hub, 0.2)
            canvas.ellipse(cx, cy, tall * 0.22, tall * 0.21, tyre, CAR)
            canvas.ellipse(cx, cy, tall * 0.1, tall * 0.1, (168, 170, 172))
        return
    half = tall * rng.uniform(0.56, 0.68)
    canvas.shadow(x, base, half * 1.25, tall * 0.12)
    for wheel in (-0.72, 0.72):
        canvas.box(x + (wheel - 0.16) * half, base - 0.3 * tall, x + (wheel + 0.16) * half, base, tyre, CAR)
    body = [(-1, 0.14), (-1, 0.55), (-0.86, 0.62), (-0.66, 1), (0.66, 1), (0.86, 0.62), (1, 0.55), (1, 0.14)]
    canvas.polygon([(x + u * half, base - v * tall) for u, v in body], colour, CAR)
    pane = [(-0.74, 0.62), (-0.58, 0.93), (0.58, 0.93), (0.74, 0.62)]
    canvas.polygon([(x + u * half, base - v * tall) for u, v in pane], glass)
    canvas.box(x - half, base - 0.28 * tall, x + half, base - 0.14 * tall, dark)
    for lamp in (-0.84, 0.84):
        canvas.ellipse(x + lamp * half, base - 0.46 * tall, 0.13 * half, 0.07 * tall, (206, 44, 40))


def paint_person(canvas: Canvas, x: float, base: float, tall: float) -> None:
    rng = canvas.rng
    shirt, trousers = canvas.pick(SHIRTS), canvas.pick(TROUSERS)
    skin = canvas.pick([(226, 182, 150), (190, 138, 104), (122, 82, 60)])
    hair = canvas.pick([(52, 40, 34), (140, 104, 62), (30, 28, 30), (150, 148, 146)])
    stride = rng.uniform(0.03, 0.11) * tall
    limb = tall * 0.105
    canvas.shadow(x + tall * 0.08, base, tall * 0.2, tall * 0.035)
    for way in (-1, 1):
        foot = x + way * stride
        hip = x + way * limb * 0.5
        canvas.polygon(
            [
                (hip - limb * 0.62, base - 0.5 * tall),
                (hip + limb * 0.62, base - 0.5 * tall),
                (foot + limb * 0.55, base),
                (foot - limb * 0.55, base),
            ],
            trousers if way < 0 else shift(trousers, -12),
            PERSON,
        )
        elbow = x + way * tall * 0.15
        canvas.polygon(
            [
                (x + way * 0.06 * tall, base - 0.82 * tall),
                (x + way * 0.13 * tall, base - 0.78 * tall),
                (elbow + limb * 0.45, base - 0.5 * tall),
                (elbow - limb * 0.45, base - 0.5 * tall),
            ],
            shift(shirt, -18),
            PERSON,
        )
    chest = [(-0.11, 0.83), (0.11, 0.83), (0.12, 0.6), (0.09, 0.46), (-0.09, 0.46), (-0.12, 0.6)]
    canvas.polygon([(x + u * tall, base - v * tall) for u, v in chest], shirt, PERSON)
    canvas.ellipse(x, base - 0.915 * tall, tall * 0.078, tall * 0.088, hair, PERSON)
    canvas.ellipse(x, base - 0.895 * tall, tall * 0.06, tall * 0.066, skin)


# kind: how many at least and at most; how near at least and at most, 0 = the horizon, 1 = the lower edge
THINGS: dict[str, tuple[int, int, float, float]] = {
    "fence": (1, 2, 0.12, 0.75),
    "tree": (0, 2, 0.1, 0.6),
    "pole": (1, 2, 0.2, 0.9),
    "car": (1, 2, 0.2, 0.95),
    "person": (1, 2, 0.25, 1.0),
}


def paint_things(canvas: Canvas, lane: Lane) -> None:
    """Fences, trees, poles, cars and people, the far ones first."""
    rng, unit = canvas.rng, canvas.unit
    things: list[tuple[float, float, str]] = []
    for kind, (least, most, near, far) in THINGS.items():
        for _ in range(int(rng.integers(least, most + 1))):
            spot = _spot(canvas, lane, kind, near, far)
            if spot is not None:
                things.append((spot[1], spot[0], kind))
    for base, x, kind in sorted(things):
        scale = unit * (0.85 + 0.65 * lane.depth(base))
        if kind == "fence":
            _fence_beside(canvas, lane, base, rng.uniform(18, 24) * scale)
        elif kind == "tree":
            paint_tree(canvas, x, base, rng.uniform(42, 62) * scale)
        elif kind == "pole":
            paint_pole(canvas, x, base, rng.uniform(56, 84) * scale)
        elif kind == "car":
            paint_car(canvas, x, base, rng.uniform(21, 27) * scale, lane.across)
        else:
            paint_person(canvas, x, base, rng.uniform(37, 48) * scale)


def _spot(canvas: Canvas, lane: Lane, kind: str, near: float, far: float) -> Point | None:
    """Where a thing touches the ground: cars on the road, people anywhere, the rest beside the road."""
    rng, margin = canvas.rng, 4 * canvas.unit
    for _ in range(6):
        x = rng.uniform(0.03, 0.97) * canvas.width
        y = lane.horizon + (canvas.height - lane.horizon) * rng.uniform(near, far)
        left, right = lane.edges(y)
        if kind == "person":
            return x, y
        if kind == "car":
            if lane.across:
                return x, lane.top + (lane.bottom - lane.top) * rng.uniform(0.15, 0.8)
            return left + (right - left) * float(rng.choice([0.27, 0.73])), y
        if kind == "fence" and not lane.across:
            return x, y
        if not left - margin < x < right + margin:
            return x, y
    return None


def _fence_beside(canvas: Canvas, lane: Lane, base: float, tall: float) -> None:
    rng, width = canvas.rng, canvas.width
    if lane.across:
        start = rng.uniform(-0.2, 0.5) * width
        paint_fence(canvas, start, start + rng.uniform(0.4, 1.0) * width, base, tall)
        return
    left, right = lane.edges(base)
    if rng.random() < 0.5 and left > 12 * canvas.unit:
        paint_fence(canvas, -4.0, left - 3 * canvas.unit, base, tall)
    elif right < width - 12 * canvas.unit:
        paint_fence(canvas, right + 3 * canvas.unit, width + 4.0, base, tall)
