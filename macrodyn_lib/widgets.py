"""Choose among finished figures with sliders, where widgets run."""

from collections.abc import Mapping
from typing import Any

import ipywidgets
from IPython.display import display
from matplotlib.figure import Figure


def chooser(figures: Mapping[tuple[Any, ...], Figure], names: tuple[str, ...]) -> ipywidgets.Widget:
    """A slider per name; shows the figure of the chosen combination.

    Without a running kernel (on GitHub, in a printed page) only its text stands in the notebook, so
    show a static figure beside it.

    Args:    figures: (value of each name) -> figure, every combination present.
    """
    sliders = {
        name: ipywidgets.SelectionSlider(
            options=sorted({key[index] for key in figures}), description=name
        )
        for index, name in enumerate(names)
    }
    output = ipywidgets.Output()

    def show(_change: object = None) -> None:
        output.clear_output(wait=True)
        with output:
            display(figures[tuple(slider.value for slider in sliders.values())])

    for slider in sliders.values():
        slider.observe(show, names="value")
    show()
    return ipywidgets.VBox([*sliders.values(), output])
