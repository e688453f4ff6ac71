"""Lines in an SVG that a browser shows in the light as in the dark."""

COLOURS = ("#1668dc", "#8c8c8c", "#d4380d", "#389e0d", "#722ed1")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 560, 320, 60, 40, 140, 40


def plot(title, unit, below, series):
    """`series`: name -> [(x, y)]; `below` says what x is."""
    points = [point for line in series.values() for point in line]
    most_x, most_y = max(x for x, _ in points) or 1, max(y for _, y in points) * 1.05 or 1

    def at(x, y):
        return LEFT + x / most_x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / most_y * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/><text x="{LEFT}" y="20" font-size="14">{title}, {unit}</text>',
           f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{below}</text>']
    for part in range(5):
        x, y = most_x * part / 4, most_y * part / 4
        (column, _), (_, row) = at(x, 0), at(0, y)
        out.append(f'<path d="M{LEFT} {row:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 6}" y="{row + 4:.1f}" text-anchor="end">{y:,.4g}</text>'
                   f'<text x="{column:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:,.4g}</text>')
    for row, (colour, (name, line)) in enumerate(zip(COLOURS, series.items())):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
                   f'<text x="{WIDTH - RIGHT + 12}" y="{TOP + 10 + row * 18}" fill="{colour}">{name}</text>')
    return "\n".join([*out, "</svg>", ""])
