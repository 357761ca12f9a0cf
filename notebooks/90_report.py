# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Collect all results in one report
#
# What was published, and what is reached here? This notebook gathers every stored run of every study and
# sweep, writes `report.md` and `report.html` beside them, and sets the published numbers and figures beside
# ours. It computes nothing new. (Paper: arXiv 2511.12842.)

# %% tags=["parameters"]
preset = (
    None  # "smoke" (60 s), "quick", "paper"; None: MACRODYN_PRESET or "quick"; all the same here
)
seed: int = 0  # not used: nothing is drawn
output_dir = None  # folder of results.json; None: one of its own in papermill_runs

# %%
from macrodyn_lib import study

run = study.begin("90_report", globals())

# %% tags=["nbval-ignore-output"]
from IPython.display import Image, Markdown, display

import macrodyn_lib as md
from macrodyn_lib import report

path = report.write_report()
print(f"written: {path.name} and {path.with_suffix('.html').name}")

# %% [markdown]
# ## 1. Published numbers beside ours
#
# *Met* says whether ours is at least as near to the truth as the published number; the truth is exact where
# it can be, else direct simulation.

# %% tags=["nbval-ignore-output"]
Markdown(report.published_table())

# %% [markdown]
# ## 2. Figures of the paper beside ours
#
# The paper's figures in words; ours as stored by the notebooks.

# %% tags=["nbval-ignore-output"]
for text, paths in report.paper_figures():
    display(Markdown(text), *(Image(filename=str(path), width=700) for path in paths))

# %% [markdown]
# ## 3. The alloy by the published barriers
#
# Short-range order by the network of the paper, in 8192 sites: late, where runs from 1200 K on are at rest;
# after five million hops; and, where the stored runs have it, at the later time at which the published clock has
# counted these, beside direct runs of 1024 sites. The published predictions are beside the last two. Means over the seeds of the sweep
# `nbmota_network` (which needs the weights, see the README); bars are two standard errors.

# %% tags=["nbval-ignore-output"]
if means := report.sweep_means("nbmota_network"):
    kinds = {
        "sro": "Late: at rest from 1200 K on", "protocol": "After five million hops",
        "published_time": "At the published time",
    }  # fmt: skip
    curves = {k: of_kind for k in kinds if (of_kind := md.alloy_study.order_curves(means, k))}
    figure = md.plotting.order_against_temperature(
        curves, pairs=md.alloy_study.PAIRS, titles=[kinds[k] for k in curves]
    )
    run.figure(figure, "alloy_network")
else:
    print("no stored runs: `macrodyn sweep nbmota_network` makes them")

# %% [markdown]
# ## 4. All studies
#
# The last stored run of each study at its largest preset; every metric with its reference, criterion and
# figures stands in `report.md`.

# %% tags=["nbval-ignore-output"]
Markdown(report.overview_table())

# %%
run.finish()
