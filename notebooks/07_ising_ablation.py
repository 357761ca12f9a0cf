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
# # Which ingredient does what? Ablations just below the critical temperature
#
# At $T=2.25$, $h=0$ the 64 × 64 Ising magnet is a hard case: it keeps its magnetization for thousands
# of time units, and the law of $M$ is decided by tiny drifts. Three questions:
#
# 1. Is it enough to learn a small lattice and rescale its noise? (paper D.3, figure 10)
# 2. Which of upsampling, partial evolution and the $K$-scaled likelihood is needed? (D.4, figure 11)
# 3. Is the best noise scale really $\lambda=K$? (ours; published runs used about $K/2$, tuned by hand)
#
# ($K=16$ patches make the lattice. A patch's increment is fitted with covariance $\lambda\Sigma\,\delta t$, and
# theory says $\lambda=K$.)
#
# (Paper: arXiv 2511.12842, Sec. III.2, App. D.3 and D.4.)

# %% tags=["parameters"]
preset = None  # "smoke" (60 s), "quick", "paper"; None: MACRODYN_PRESET or "quick"
seed: int = 0  # of all randomness
output_dir = None  # folder of results.json; None: one of its own in papermill_runs
side: int = 64  # the large lattice has side^2 spins
patch_side: int = 16  # the small lattice and the patch have patch_side^2 spins
temperature: float = 2.25  # in units of the coupling; the field is zero
patch_duration: float = 0.5  # of partial evolution, attempted flips per spin
snapshots = None  # of the large lattice, for each study
members = None  # independent fits, for standard errors
rollouts = None  # paths per member
training_steps = None  # gradient steps at most
continuations = None  # of each patch of every snapshot, an even number
records = None  # of the rates of each snapshot as it goes on relaxing
window = None  # time over which equilibrium is observed, after as long a warm-up
scope = None  # "few" or "all" settings of the noise-scale and LocalRelax studies

# %%
from macrodyn_lib import study

run = study.begin("07_ising_ablation", globals())

# %% tags=["nbval-ignore-output"]
import numpy as np

import macrodyn_lib as md
from macrodyn_lib import criticality, exact, pipeline

# %% [markdown]
# ## 1. The truth, three ways
#
# Equilibrium by cluster updates (Wolff), the dynamics by kinetic Monte Carlo (multi-spin) that starts
# from cluster states, and Kaufman's exact energy. At $h=0$ the law of $M$ is symmetric, so $|M|$ is
# compared.

# %% tags=["nbval-ignore-output"]
system = md.Ising(side=run.side, temperature=run.temperature, field=0.0)
step = 0.25 if run.scope == "all" else 0.5
test = pipeline.EquilibriumTest(
    window=run.window, spacing=5.0, replicas=run.rollouts, max_step=step
)  # fmt: skip
with run.timed("truth"):
    true_snapshots, starts = pipeline.equilibrium_snapshots(
        system, run.snapshots, run.stream("true snapshots")
    )
    copies = np.tile(starts, (4 if run.scope == "all" else 1, 1, 1))  # each goes its own way
    direct = pipeline.direct_equilibrium(system, copies, test, run.stream("direct"))
    wolff = system.wolff_chains(32, 20 * run.rollouts, run.stream("wolff"), clusters=20, warm_up=50)
truth = pipeline.equilibrium_estimates(direct, system)
clusters = pipeline.cluster_estimates(wolff, system)

# %% tags=["nbval-ignore-output"]
energy = exact.kaufman_energy(run.side, run.temperature)
kaufman = float(exact.domain_wall_density(energy))
run.check("direct.rho", truth["rho"], reference=kaufman, kind="exact", z=4)
run.check("clusters.rho", clusters["rho"], reference=kaufman, kind="exact", z=4)
for name in ("abs_magnetization", "susceptibility", "binder"):
    run.check(f"direct.{name}", truth[name], reference=clusters[name], kind="simulation", z=4)
print(f"relaxation time of |M|: {truth['relaxation_time']} (longest: {direct.longest_lag():g})")

# %% [markdown]
# ## 2. Snapshots: true ones, copies, copies that healed
#
# The same 16 × 16 equilibrium snapshots enlarged to the large lattice without LocalRelax, and with
# tiles relaxed for 10, 100, 400 time units at each level.
#
# Everything below is quoted from a fit to all snapshots at hand; `members` fits to disjoint shares
# of them make the standard errors. Increments that share a small cell of $(M,\rho)$ are merged before
# the training, which can then be carried to convergence: near $T_c$ the drift that decides the law of
# $M$ is a thousandth of the loss.

# %% tags=["nbval-ignore-output"]
every = run.scope == "all"
settings = md.TrainingSettings(
    steps=run.training_steps, learning_rate=0.01, check_every=100,
    resolution=0.05 if every else 0.1,
)  # fmt: skip
recipe = pipeline.Recipe(
    patch_side=run.patch_side, snapshots=run.snapshots, times=(0.0,), relax_durations=(0.0,),
    duration=run.patch_duration, continuations=run.continuations, signs=(-1, 1),
    members=run.members, whole=True, settings=settings,
)  # fmt: skip
small_system = system.resized(run.patch_side)

# %% tags=["nbval-ignore-output"]
durations = (0.0, 10.0, 100.0, 400.0) if every else (0.0, 10.0, 100.0)
upsample = run.cached(pipeline.upsample_for_each_duration)
with run.timed("sample"):
    small = pipeline.small_equilibrium_snapshots(small_system, run.snapshots, run.stream("small"))
    pools = upsample(system, small, durations, run.snapshots // 2, run.stream("upsample"))
figure, axes = md.plotting.panels(len(pools) + 1, width=2.2, height=2.4)
md.plotting.heat_map(axes[0], true_snapshots.states[0], "true")
for panel, (duration, pool) in zip(axes[1:], pools.items(), strict=True):
    md.plotting.heat_map(panel, pool.states[0], f"LocalRelax {duration:g}")
run.figure(figure, "snapshots")

# %% [markdown]
# ## 3. D.3: is it enough to rescale the noise of a small lattice?
#
# (i) the 16 × 16 lattice learned from its own full evolution; (ii) the same equation with its
# diffusion divided by $\sqrt K$; (iii) large snapshots, partial evolution and the $K$-scaled
# likelihood.

# %% tags=["nbval-ignore-output"]
tasks = {
    "small": (small_system, recipe, small),
    "a": (system, recipe.but(patch_side=run.side), true_snapshots),
    "c": (system, recipe, true_snapshots),
    "d": (system, recipe.but(patch_side=run.side), pools[durations[-1]]),
    "f": (system, recipe, pools[durations[-1]]),
    "g": (system, recipe.but(patch_side=run.side), pools[0.0]),
    "i": (system, recipe, pools[0.0]),
}
n_patches = (run.side // run.patch_side) ** 2
learn = run.cached(pipeline.learn_equilibria)
with run.timed("D.3 and D.4"):
    more = {"small": (n_patches,)} | {cell: (1 / n_patches,) for cell in "cfi"}
    learned = learn(tasks, test, run.stream("ablation"), more_ratios=more)

# %% tags=["nbval-ignore-output"]
with run.timed("D.3 and D.4"):
    small_starts = small.states[: 512 // 64 * 64]
    small_direct = pipeline.direct_equilibrium(
        small_system, small_starts, test, run.stream("small direct")
    )
settings = {
    "(i) small lattice": (learned["small"][1.0], small_direct),
    "(ii) its noise rescaled": (learned["small"][n_patches], direct),
    "(iii) ours": (learned["c"][1.0], direct),
}
run.figure(md.plotting.laws_and_paths(settings, unit="flips per spin"), "d3")

# %% tags=["nbval-ignore-output"]
n_lags = int(run.window / test.spacing / 5)
for name, (paths, reference) in zip(("i", "ii", "iii"), settings.values(), strict=True):
    distance = pipeline.distances(paths, reference, n_lags)["law"]
    near = {"reference": 0, "kind": "simulation", "absolute": 0.05, "z": 3}
    ours = pipeline.distances(learned["c"][1.0], direct, n_lags)["law"].value
    run.check(f"d3.{name}", distance, **({"above": ours, "z": 3} if name == "ii" else near))

# %% [markdown]
# ## 4. D.4: nine cells
#
# Rows: where the snapshots come from. Columns: how they are used: *conventional* (full evolution of
# the large lattice, plain likelihood), *baseline* (a patch moves, plain likelihood, $\lambda=1$),
# *ours* (a patch moves, $\lambda=K$). The likelihood's minimiser for another $\lambda$ is the same
# drift with $\Sigma K/\lambda$, so the baseline is ours with $K$ times the covariance.

# %% tags=["nbval-ignore-output"]
rows = {"true snapshots": "abc", "hierarchical upsampling": "def", "naive upsampling": "ghi"}
cells = {}
for letters in rows.values():
    conventional, baseline, ours = letters
    cells[conventional] = learned[conventional][1.0]
    cells[baseline] = learned[ours][1 / n_patches]
    cells[ours] = learned[ours][1.0]
run.figure(md.plotting.nine_laws(rows, cells, direct), "d4")

# %% tags=["nbval-ignore-output"]
distance = {k: pipeline.distances(paths, direct, n_lags)["law"] for k, paths in cells.items()}
for letter in "abcdefghi":
    bound = near if letter in "acdf" else {"above": distance["c"].value, "z": 3}
    run.check(f"distance.{letter}", distance[letter], **bound)

# %% [markdown]
# ## 5. How long must LocalRelax be?
#
# What remains is the quality of the snapshots, and noise: that of the increments and that of the
# drift from snapshot to snapshot. Both go if the rates of all flips are recorded while the snapshots go
# on relaxing in their tiles, and if the equation, like the magnet, obeys detailed balance: a potential
# and a covariance, fitted in closed form (as in `05_ising_criticality`). From true snapshots, upsampled
# ones, and upsampled ones with shorter LocalRelax and few records:

# %% tags=["nbval-ignore-output"]
learn_law = run.cached(criticality.learned_law)
best, few = durations[-1], max(run.records // 16, 5)
with run.timed("LocalRelax"):
    healing = {}
    for d in durations[1:]:
        own = criticality.of_magnetizations(system.observables(pools[d].states)[:, 0], system)
        rounds, stream = run.records if d == best else few, run.stream("rates", f"{d:g}")
        healing[d] = own, learn_law(system, pools[d], run.patch_side, rounds, stream)
    from_truth = learn_law(
        system, true_snapshots, run.patch_side, run.records, run.stream("true rates")
    )
quantities = ("abs_magnetization", "susceptibility")
lines = {name: clusters[name] for name in quantities}
run.figure(md.plotting.against_relaxation(healing, lines), "local_relax")

# %% [markdown]
# Two more estimates from true snapshots, with networks and rollouts: sampled pairs (**sampled**, the
# paper's method), and pairs of longer patch moves, of which the part that the rates along the path do not
# explain, of mean zero, is used as a control variate (**integrated**).

# %% tags=["nbval-ignore-output"]
many, _ = pipeline.equilibrium_snapshots(system, 4 * run.snapshots, run.stream("many true"))
integrated = recipe.but(increments="integrated", duration=4.0, continuations=2)
tasks = {"true.integrated": (system, integrated, many), "true.sampled": (system, recipe, many)}
more_paths = test.but(replicas=4 * run.rollouts)
with run.timed("networks"):
    healed = learn(tasks, more_paths, run.stream("networks"))
estimates = {"upsampled": healing[best][1], "true.rates": from_truth}
estimates |= {k: pipeline.equilibrium_estimates(v[1.0], system) for k, v in healed.items()}

# %% tags=["nbval-ignore-output"]
allowed = {"abs_magnetization": 0.02, "susceptibility": 0.1, "relaxation_time": 0.1}
reference = {name: clusters.get(name, truth[name]) for name in allowed}
for source, found in estimates.items():
    for name, part in allowed.items():
        run.check(
            f"{source}.{name}", found[name], reference=reference[name], kind="simulation",
            relative=part, z=3, listed=name != "relaxation_time",  # "smoke" cannot see it
        )  # fmt: skip

# %% tags=["nbval-ignore-output"]
shown = {
    k: {name: (v[name].value, v[name].standard_error) for name in allowed}
    for k, v in estimates.items()
}
lines = {name: reference[name].value for name in allowed}
run.figure(md.plotting.variants(shown, lines, title="Learned; dashed: direct"), "equilibrium")

# %% [markdown]
# **The clock.** Why does the equation of the rates relax too fast? In equilibrium a patch's move is a
# reversible step, and how slowly *even* functions of $(M,\rho)$ can relax under it follows from a
# Rayleigh-Ritz principle, without a fit: as $\delta t\to0$ no reversible equation of $(M,\rho)$ with these mean
# rates is slower. The points are these bounds: slowest decay times, longer than the $1/e$ times of $|M|$ above.
# The lattice itself remembers more than $(M,\rho)$. A longer $\delta t$ keeps part of that memory.

# %% tags=["nbval-ignore-output"]
lags = (0.1, 0.5, 2.0, 4.0, 7.0, 15.0) if every else (0.1, 2.0)
fewer = true_snapshots.select(run.stream("clock").permutation(len(true_snapshots))[:8192])
with run.timed("clock"):
    bounds = pipeline.slowest_times(system, fewer, recipe.patching, lags, run.stream("clock moves"))
    seen = pipeline.slowest_time_seen(direct, lag=run.window / 10)
for lag, value in bounds.items():
    run.report(f"slowest_time.{lag:g}", value, reference=seen, kind="simulation", listed=False)
figure = md.plotting.estimates_against(
    lags, list(bounds.values()), seen.value, axis="duration δt of a patch's move (flips per spin)",
    quantity="slowest relaxation (flips per spin)", reference_label="direct simulation",
    title="What (M, ρ) can know of the clock", log_x=True, log_y=False,
)  # fmt: skip
run.figure(figure, "clock")

# %% [markdown]
# ## 6. Is the best noise scale $K$?
#
# True snapshots; boundary × duration × $\lambda/K$. Distance of the law of $|M|$, and of its
# autocorrelation, from direct simulation.

# %% tags=["nbval-ignore-output"]
boundaries, lengths = ("ghost", "buffer", "periodic"), (run.patch_duration, 2.0, 7.0)
choices = [(boundary, length) for boundary in boundaries for length in lengths]
ratios = (0.25, 0.5, 1.0, 2.0) if every else (0.5, 1.0, 2.0)
tasks = {(b, d): (system, recipe.but(boundary=b, duration=d), true_snapshots) for b, d in choices}
shorter = test.but(window=run.window / 2, replicas=2 * run.rollouts)
with run.timed("noise scale"):
    scan = learn(tasks, shorter, run.stream("noise scale"), noise_ratios=ratios)

# %% tags=["nbval-ignore-output"]
curves = {
    (b, d): {r: pipeline.distances(scan[b, d][r], direct, n_lags) for r in ratios}
    for b, d in choices
}
run.figure(md.plotting.noise_scales(curves), "noise_scale")

# %% tags=["nbval-ignore-output"]
for boundary, duration in choices:
    paths = scan[boundary, duration]
    name = f"best_noise_scale.{boundary}.{duration:g}"
    for quantity, ending in (("law", ""), ("autocorrelation", ".autocorrelation")):
        ratio = pipeline.best_noise_ratio(paths, direct, quantity, n_lags)
        scale = md.statistics.Estimate(
            n_patches * ratio.value, n_patches * (ratio.standard_error or 0), ratio.members
        )
        if (boundary, duration, ending) == ("ghost", run.patch_duration, ""):
            goal = {"absolute": n_patches / 2, "z": 3}
            run.check(name, scale, reference=n_patches, kind="exact", **goal)
        else:
            run.report(name + ending, scale, reference=n_patches, kind="exact")

# %% [markdown]
# ## 7. Results

# %% tags=["nbval-ignore-output"]
run.table()

# %%
run.finish()
