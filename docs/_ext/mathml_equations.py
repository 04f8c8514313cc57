"""Sphinx extension: equations as MathML, made when the page is built.

Browsers draw it by themselves, so a reader needs neither a script nor another server.
"""

from typing import Any

from docutils.utils.math.latex2mathml import tex2mathml


def equation(tex: str, inline: bool) -> str:
    """An equation as a `<math>` element.

    Args:
        tex: LaTeX mathematics.
        inline: in a line of text, or on a line by itself.

    Raises:
        MathError: something in it is not known; the build fails.
    """
    return tex2mathml(tex.strip(), as_block=not inline)


def _inline(translator: Any, node: Any) -> None:
    translator.body.append(equation(node.astext(), inline=True))


def _block(translator: Any, node: Any) -> None:
    translator.body.append(f'<div class="equation">{equation(node.astext(), inline=False)}</div>')


def _skip(visit: Any) -> Any:
    from docutils.nodes import SkipNode

    def and_skip(translator: Any, node: Any) -> None:
        visit(translator, node)
        raise SkipNode

    return and_skip


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_skip(_inline), None), (_skip(_block), None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
