"""An image as coloured half blocks, for terminals with 24-bit colour."""

from PIL import Image

COLUMNS = 72


def half_blocks(image: Image.Image, columns: int = COLUMNS) -> str:
    """Two rows of pixels a line: the upper colours the block, the lower what is behind it.

    Args:
        image: any size and mode.
        columns: width in characters.
    """
    rows = max(2, round(image.height * columns / image.width / 2) * 2)
    small = image.convert("RGB").resize((columns, rows), Image.Resampling.LANCZOS)
    pixels = small.tobytes()
    lines = []
    for top in range(0, rows, 2):
        cells = []
        for column in range(columns):
            upper, lower = (
                ";".join(map(str, pixels[start : start + 3]))
                for start in (3 * (row * columns + column) for row in (top, top + 1))
            )
            cells.append(f"\x1b[38;2;{upper}m\x1b[48;2;{lower}m▀")
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)
