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
# # Predict 4096 spins after watching 256
#
# Imagine 4096 little magnets ("spins"), each pointing up ($+1$) or down ($-1$), flipping at random,
# and each preferring to point like the average of all (the Curie–Weiss model of a magnet). We care
# about one number only, the **magnetization** $M$: the average of all spins. It drifts and jitters,
#
# $$dM = \mu(M)\,dt + \sqrt{\Sigma(M)}\,dB ,$$
#
# with a *drift* $\mu$ (where it goes on average) and a *diffusion* $\Sigma$ (how much it jitters).
#
# **Question.** Suppose that simulating all 4096 spins is too expensive. Can we find $\mu$ and $\Sigma$
# by simulating 256 at a time? In six steps, each one screen, less than a minute in all.

# %% tags=["parameters"]
preset = None  # "smoke", "quick", "paper"; None: MACRODYN_PRESET or "quick"
seed: int = 0  # of all randomness
output_dir = None  # folder of results.json; None: one of its own in papermill_runs
temperature: float = 1.1  # how strongly the spins jiggle, in units of their coupling
field: float = 0.1  # outside push towards up, in units of the coupling
snapshots = None  # large configurations to learn from
rollouts = None  # predicted paths per start

# %%
from macrodyn_lib import study

run = study.begin("00_quickstart", globals())

# %% tags=["nbval-ignore-output"]
import numpy as np

import macrodyn_lib as md
from macrodyn_lib.exact import CurieWeissExact
from macrodyn_lib.rollouts import rollout_ensemble

# %% [markdown]
# ## Step 1. Simulate a small system
#
# 16 × 16 = 256 spins, many runs, each from another random magnetization. One unit of time is one
# attempted flip per spin. Below: a few runs, and one configuration (yellow up, blue down).

# %% tags=["nbval-ignore-output"]
big = md.CurieWeiss(side=64, temperature=run.temperature, field=run.field)
little = big.resized(16)
times = np.linspace(0, 10, 20)
small = md.pipeline.simulate_snapshots(
    little, trajectories=run.snapshots // 20, times=times, rng=run.stream("small")
)
paths = little.observables(small.states).reshape(-1, len(times))

# %% tags=["nbval-ignore-output"]
figure, panels = md.plotting.panels(2)
md.plotting.sample_paths(
    panels[0], times, paths[:25], color=md.plotting.SMALL, name="runs of 256 spins"
)
md.plotting.label(panels[0], "time (flips per spin)", "magnetization M")
md.plotting.heat_map(panels[1], small.states[-1], "256 spins")
run.figure(figure, "step1_small")

# %% [markdown]
# ## Step 2. Blow the snapshots up
#
# Double the size (every spin becomes a 2 × 2 block), let overlapping pieces relax for a moment so
# that the blocks dissolve, and repeat: 16 → 32 → 64. The result looks like a snapshot of the large
# system, and no large simulation was run. (The third picture is of another snapshot.)

# %% tags=["nbval-ignore-output"]
large = md.upsample(
    small, to=big, count=run.snapshots, relax=md.LocalRelax(side=16, duration=0.1),
    rng=run.stream("upsample"),
)  # fmt: skip
blocks = big.upsampled(small.states[-1:], 4)[0]
figure, panels = md.plotting.panels(3, width=3)
md.plotting.heat_map(panels[0], small.states[-1], "256 spins")
md.plotting.heat_map(panels[1], blocks, "only enlarged")
md.plotting.heat_map(panels[2], large.states[-1], "enlarged and relaxed: 4096 spins")
run.figure(figure, "step2_upsampled")

# %% [markdown]
# ## Step 3. Move one patch, freeze the rest
#
# Cut the 64 × 64 lattice into $K=16$ patches. Pick one, let its 256 spins flip for a short time
# $\delta t$ while all others stand still, and note how much the patch's magnetization changed. The
# mean of that change is $\mu\,\delta t$, as for the whole lattice; its variance is $K$ times that of
# the whole lattice, because 256 spins jitter more than 4096.

# %% tags=["nbval-ignore-output"]
patching = md.Patching(side=16)
pairs = md.evolve_patches(
    big, large, patching, duration=0.05, patches_per_snapshot=16, twins=True,
    rng=run.stream("patches"),
)  # fmt: skip
shown = large.states[-1:]
moved = big.evolve_patch(shown, patching.patches((64, 64))[5], 1.0, run.stream("picture"))
figure, panels = md.plotting.panels(3, width=3)
md.plotting.heat_map(panels[0], shown[0], "before")
md.plotting.heat_map(panels[1], moved[0], "after, one patch evolved")
md.plotting.heat_map(panels[2], (moved - shown)[0] / 2, "difference")
run.figure(figure, "step3_patch")

# %% [markdown]
# ## Step 4. Fit the equation
#
# Two small neural networks stand for $\mu(M)$ and $\Sigma(M)$. They are fitted so that the observed
# changes are as likely as possible under a normal distribution with mean $\mu\,\delta t$ and variance
# $K\Sigma\,\delta t$. That factor $K$ is the heart of the method. (For this model the answer is known
# exactly: dashed.)

# %% tags=["nbval-ignore-output"]
model, settings = (
    md.MLPSDE(1, hidden=(16, 16)),
    md.TrainingSettings(steps=200, learning_rate=0.02, check_every=20),
)
fits = md.fit_ensemble(md.encode(pairs), model, members=4, settings=settings, rng=run.stream("fit"))
exact = CurieWeissExact(n_sites=4096, temperature=run.temperature, field=run.field)
M = np.linspace(*np.quantile(pairs.observables, [0.005, 0.995]), 100)
drifts = np.array([fit.drift(M[:, None])[:, 0] for fit in fits])
covariances = np.array([fit.covariance(M[:, None])[:, 0, 0] for fit in fits])
figure = md.plotting.drift_and_diffusion(
    M, {"learned": (drifts, covariances)}, (exact.drift(M), exact.covariance(M)),
    observable="M", n_sites=4096,
)  # fmt: skip
run.figure(figure, "step4_fit")

# %% [markdown]
# ## Step 5. Predict
#
# Integrate the fitted equation from a start it was never shown and compare the mean and the spread of
# $M(t)$ with the exact solution for 4096 spins.

# %% tags=["nbval-ignore-output"]
horizon, starts = np.linspace(0, 30, 151), np.array([[-0.5], [0.0], [0.7]])
predicted = rollout_ensemble(
    fits, start=starts, replicas=run.rollouts, times=horizon, rng=run.stream("rollout")
)
true_mean, true_std = exact.moments_of(starts[:, 0], horizon)
figure = md.plotting.mean_and_std_paths(
    horizon, {"learned": (predicted.means()[0][0, :, 0], predicted.stds()[0, :, 0])},
    (true_mean[0], true_std[0]), observable="M", unit="flips per spin", title="From M(0) = -0.5",
)  # fmt: skip
run.figure(figure, "step5_prediction")

# %% [markdown]
# ## Step 6. Play
#
# The same five steps for other temperatures and patch sizes (a smaller patch means a larger $K$).
# In JupyterLab two sliders choose among the pictures; where widgets do not run, the overview stands
# for them. Below $T=1$ and without a field the magnet would choose a side by itself; with this field
# the learned drift still shows how it slows down.

# %% tags=["nbval-ignore-output"]
recipe = md.pipeline.Recipe(
    patch_side=16, snapshots=1000, times=tuple(times), relax_durations=(0.1,), duration=0.05,
    members=2, hidden=model.hidden, settings=settings,
)  # fmt: skip
temperatures, sides = [0.9, 1.1, 1.5], [8, 16, 32]
test = md.pipeline.RolloutTest(
    start=starts[:1], replicas=100, times=horizon, true_mean=true_mean[:1, :, None], every=1,
    max_step=0.1,
)  # fmt: skip
learn = run.cached(md.pipeline.learn_grid)
with run.timed("play"):
    grid = learn(big, recipe, temperatures, sides, test, run.stream("play"))

# %% tags=["nbval-ignore-output"]
M = np.linspace(-0.7, 0.8, 100)
laws = {t: CurieWeissExact(n_sites=4096, temperature=t, field=run.field) for t in temperatures}
learned = {
    key: np.mean([fit.drift(M[:, None])[:, 0] for fit in members], axis=0)
    for key, (members, _) in grid.items()
}
figure = md.plotting.drift_overview(M, learned, {t: law.drift(M) for t, law in laws.items()})
run.figure(figure, "step6_overview")

# %% tags=["nbval-ignore-output"]
pictures = {}
for (t, side), (_, paths) in grid.items():
    moments = laws[t].moments(starts[0, 0], horizon)
    pictures[t, side] = md.plotting.drift_and_prediction(
        M, (learned[t, side], laws[t].drift(M)), horizon,
        (paths.means()[0][0, :, 0], paths.stds()[0, :, 0]), moments,
        title=f"T = {t:g}, K = {(64 // side) ** 2} patches of {side}²",
    )  # fmt: skip
md.widgets.chooser(pictures, ("temperature", "patch side"))

# %% [markdown]
# ## How good was it?
#
# The error is the paper's: the squared distance of the predicted from the true mean path, relative to
# the square of the true one, averaged over the three starts.

# %%
run.check("error.ours", predicted.error(true_mean[..., None]), below=0.002)
run.finish()
