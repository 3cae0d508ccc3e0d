"""The page itself: numbers and pictures put into its template.

Its content security policy lets the browser load nothing at all and run the page's own script only.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.outputs.books import busy, cost
from pipeline.report.charts import Chart, draw_histogram
from pipeline.report.contents import Contents
from pipeline.report.gallery import Gallery

TEMPLATES = "templates"
NOTHING = "\N{EN DASH}"
"""Stands where there is no number."""


def render_page(contents: Contents, gallery: Gallery) -> str:
    """The whole page. Every text out of the data is escaped by the template."""
    style, script = _asset("report.css"), _asset("report.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    return _environment().get_template("report.html").render(
        report=contents,
        gallery=gallery,
        charts=_charts(contents),
        style=Markup(style),
        script=Markup(script),
        policy=policy,
    )  # fmt: skip


def _charts(contents: Contents) -> list[Chart]:
    histograms = contents.histograms
    return [
        draw_histogram(
            "score",
            "Masks by score",
            "Cosine of image and text: is the thing there at all? Levels differ from model to "
            "model, so choose a limit from the table of filters below, not from another run.",
            histograms["score"],
            lambda value: f"{value:.3f}",
        ),
        draw_histogram(
            "raw-max",
            "Masks by maximum of the raw map",
            "How strongly the hottest spot speaks for the text, on a logarithmic axis; comparable "
            "between images of one run. Maps far below the rest are mostly noise.",
            histograms["raw_max"],
            lambda value: f"{value:.2g}",
        ),
        draw_histogram(
            "area",
            "Masks by part of the image",
            "A peak near 100 % means masks that cover everything; very small ones are often "
            "single hot cells. --select.min_area and --select.max_area take them out.",
            histograms["area"],
            percent,
        ),
        draw_histogram(
            "heat",
            "Masks by mean heat inside",
            "Heat is normalised for every map, so this says how sharply a mask is set off, not "
            "whether the thing is there. Near the threshold, edges are uncertain.",
            histograms["heat_mean"],
            lambda value: f"{value:.2f}",
        ),
        draw_histogram(
            "per-image",
            "Images by number of masks",
            "All images that were not rejected. Many at 0 mean that prompts were missing, or that "
            "their masks were dropped: see “Prompts without a mask”.",
            histograms["masks_per_image"],
            lambda value: f"{value:.0f}",
            whole=True,
        ),
    ]


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.report", TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count, "percent": percent, "decimals": decimals, "seconds": seconds, "rate": rate,
        "spent": cost.spoken, "bound": busy.spoken,
    }  # fmt: skip
    return environment


def _asset(name: str) -> str:
    return (resources.files("pipeline.report") / TEMPLATES / name).read_text("utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def count(value: int) -> str:
    """12,345."""
    return f"{value:,}"


def percent(value: float | None) -> str:
    """0.123 → 12.3 %; None is a dash."""
    return NOTHING if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def decimals(value: float | None, digits: int = 3) -> str:
    """A number with so many digits; None is a dash."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def rate(value: float | None) -> str:
    """A speed with three digits or more; None is a dash."""
    return NOTHING if value is None else f"{value:,.1f}" if value >= 10 else f"{value:.2f}"


def seconds(value: float) -> str:
    """3725.2 → 1 h 2 min; below two minutes with a decimal."""
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"
