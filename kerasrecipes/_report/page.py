"""One page of HTML that needs nothing else: light and dark, from a phone to a wide screen."""

from importlib.resources import files


def page(**parts):
    """Renders page.html; whatever comes from data is escaped.

    Args:
        **parts: what the template names: title, summary, findings, comparison, drawings, …

    Returns:
        The page as text.

    Raises:
        ImportError: without jinja2.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ImportError("The report needs jinja2: pip install jinja2.") from error
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = files("kerasrecipes._report").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(**parts)
