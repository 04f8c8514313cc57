"""Draw a sheet of phantoms, a row for each modality, with questions and answers below each picture.

python tools/phantom_sheet.py docs/figures/phantoms.png
python tools/phantom_sheet.py sheet.png 8 5 MRI     # 8 columns, 5 questions, eight rows of MRI
"""

import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from exgra_med.lab.phantom.draw import draw_scene
from exgra_med.lab.phantom.questions import Asked, Questioner
from exgra_med.lab.phantom.scene import MODALITIES, Scene, sample_scene

PIXELS, SCALE, MARGIN, LINE = 64, 3, 8, 13
WIDTH = PIXELS * SCALE
LETTERS_PER_LINE = 32
NUM_SCENES = 400
ROWS_OF_ONE = 8


def draw_sheet(out: Path, num_columns: int, num_questions: int, only: str | None) -> None:
    """Write the sheet."""
    questioner = Questioner(0, "train", num_questions)
    scenes = [sample_scene(0, "train", number) for number in range(NUM_SCENES)]
    cells = [(scene, questioner.ask(scene)) for scene in scenes]
    rows = [only] * ROWS_OF_ONE if only else list(MODALITIES)
    waiting = {name: [cell for cell in cells if cell[0].modality == name] for name in rows}
    height = WIDTH + LINE * (3 * num_questions) + MARGIN
    size = (num_columns * (WIDTH + MARGIN) + MARGIN, len(rows) * (height + MARGIN) + MARGIN)
    sheet = Image.new("L", size, 255)
    for row, modality in enumerate(rows):
        for column in range(num_columns):
            corner = (MARGIN + column * (WIDTH + MARGIN), MARGIN + row * (height + MARGIN))
            _draw_cell(sheet, corner, *waiting[modality].pop(0))
    sheet.save(out, optimize=True)


def _draw_cell(
    sheet: Image.Image, corner: tuple[int, int], scene: Scene, questions: list[Asked]
) -> None:
    picture = Image.fromarray(draw_scene(scene, PIXELS))
    sheet.paste(picture.resize((WIDTH, WIDTH), Image.Resampling.NEAREST), corner)
    lines: list[str] = []
    for asked in questions:
        text = f"{asked.text} {asked.candidate.answer}"
        lines += textwrap.wrap(text, LETTERS_PER_LINE)
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        place = (corner[0], corner[1] + WIDTH + 3 + LINE * number)
        pen.text(place, line, fill=0, font=ImageFont.load_default(11))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    draw_sheet(
        Path(arguments[0]),
        int(arguments[1]) if len(arguments) > 1 else 5,
        int(arguments[2]) if len(arguments) > 2 else 2,
        arguments[3] if len(arguments) > 3 else None,
    )
