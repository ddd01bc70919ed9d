"""Fill a page's template."""

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from figures.pages.markdown import anchor


def render(package: str, template: str, **shown: Any) -> str:
    """A page from a template of a package, which may extend and include what stands in `figures.pages`.

    Args:
        package: whose folder holds the template, "figures.report" for instance.
        template: the file's name.
        shown: names in the template -> values; a name that is missing is an error.

    Returns:
        The page's text.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("figures.pages", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["anchor"] = anchor
    return environment.get_template(template).render(**shown)
