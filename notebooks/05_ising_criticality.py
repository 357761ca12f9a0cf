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
# # Learn a critical magnet from pieces of 16 × 16 spins
#
# At the critical temperature domains of all sizes live side by side, and what decides the law of $M$
# are tiny drifts. Can the equilibrium of a large lattice be learned from simulations of 16 × 16 pieces?
#
# This notebook is one point (side, temperature). The sweep `papermill_runs/criticality.yaml` makes the
# plane, and `06_finite_size_scaling` reads exponents off it. (Paper: arXiv 2511.12842, Sec. III.2.)

# %% tags=["parameters"]
preset = None  # "smoke" (60 s), "quick", "paper"; None: MACRODYN_PRESET or "quick"
seed: int = 0  # of all randomness
output_dir = None  # folder of results.json; None: one of its own in papermill_runs
side: int = 64  # the large lattice has side^2 spins
patch_side: int = 16  # the small lattice and the patch have patch_side^2 spins
temperature: float = 2.27  # in units of the coupling; the field is zero; critical: 2.2692
patch_duration: float = 2.0  # of partial evolution, attempted flips per spin
snapshots = None  # of the large lattice
relax_duration = None  # of LocalRelax per tile, at every level of the hierarchy
rounds = None  # of LocalRelax that follow, with a record of the rates after each
continuations = None  # of each patch, an even number (sampled pairs)
wolff_samples = None  # of each of 32 chains of cluster updates, for the reference
window = None  # length of the direct simulations that tell the relaxation time
rollouts = None  # paths of the learned SDE
scope = None  # "point": the numbers alone (for sweeps); "all": figures and the study of LocalRelax

# %%
from macrodyn_lib import study

run = study.begin("05_ising_criticality", globals())

# %% tags=["nbval-ignore-output"]
from functools import partial

import numpy as np

import macrodyn_lib as md
from macrodyn_lib import criticality, exact, pipeline

everything = run.scope == "all"

# %% [markdown]
# ## 1. The truth
#
# Equilibrium by cluster updates (Wolff), checked against Kaufman's exact energy; the relaxation time of
# $|M|$ by kinetic Monte Carlo of the large lattice that starts in equilibrium. Nothing of this is learned
# from. Susceptibility $X=L^2(\langle M^2\rangle-\langle|M|\rangle^2)/T$, Binder cumulant
# $U=1-\langle M^4\rangle/3\langle M^2\rangle^2$.

# %% tags=["nbval-ignore-output"]
system = md.Ising(side=run.side, temperature=run.temperature, field=0.0)
with run.timed("truth"):
    chains, starts = criticality.equilibrium_states(system, run.wolff_samples, run.stream("wolff"))
    true_relaxation, longest = criticality.direct_relaxation(
        system, starts, run.window, run.stream("direct")
    )
truth = pipeline.cluster_estimates(chains, system)
kaufman = float(exact.domain_wall_density(exact.kaufman_energy(run.side, run.temperature)))
run.check("direct.rho", truth["rho"], reference=kaufman, kind="exact", z=4)
for name in criticality.QUANTITIES:
    run.report(f"direct.{name}", truth[name])
run.report("direct.relaxation_time", true_relaxation)
print(f"relaxation time of |M|: {true_relaxation} (longest that could be seen: {longest:g})")

# %% [markdown]
# ## 2. Snapshots from pieces
#
# Equilibrium of the small lattice, enlarged level by level, each time healed by LocalRelax in overlapping
# 16 × 16 tiles among frozen neighbours. Healing goes on while the *rates* are recorded, $b(x)$ and $S(x)$
# of $z=(M,\rho)$: the limit $\delta t\to0$ of partial evolution, without its $K$-fold noise.

# %% tags=["nbval-ignore-output"]
small_system = system.resized(run.patch_side)
with run.timed("snapshots"):
    small = pipeline.small_equilibrium_snapshots(small_system, run.snapshots, run.stream("small"))
    healed = criticality.large_snapshots(
        system, small, run.relax_duration, run.snapshots, run.stream("upsample")
    )
with run.timed("rates"):
    last, rates = criticality.relaxing_rates(
        system, healed, run.patch_side, run.rounds, run.stream("rates"), "record rates"
    )
magnetizations = {
    stage: system.observables(pool.states)[:, 0]
    for stage, pool in (("healed", healed), ("last", last))
}

# %% tags=["nbval-ignore-output"]
figure, axes = md.plotting.panels(4, width=2.4, height=2.6)
enlarged = system.upsampled(small.states[:1], run.side // run.patch_side)[0]
shown = {
    "small": small.states[0],
    "enlarged (no LocalRelax)": enlarged,
    "healed": healed.states[0],
    "after the last record": last.states[0],
}
for panel, (title, state) in zip(axes, shown.items(), strict=True):
    md.plotting.heat_map(panel, state, title)
run.figure(figure, "snapshots")

# %% [markdown]
# ## 3. The learned law
#
# Glauber dynamics obeys detailed balance, and so do conditional averages of its rates. So the SDE is
# $\mathrm{d}z=\tfrac12(\nabla\cdot\Sigma-\Sigma\nabla V)\,\mathrm{d}t+\Sigma^{1/2}\mathrm{d}B$: a potential
# $V(M,\rho)$ and a covariance, both polynomials, found by weighted least squares in closed form. Its law is
# $e^{-V}$, its relaxation time follows from its generator on a grid.

# %% tags=["nbval-ignore-output"]
with run.timed("fit"):
    learned = criticality.law_estimates(rates, system, clock=True)
    model = criticality.learn(rates, system)
for name, (relative, absolute) in {
    "abs_magnetization": (0.01, 0),
    "susceptibility": (0.05, 0),
    "binder": (None, 0.005),
}.items():
    run.check(
        name, learned[name], reference=truth[name], kind="simulation",
        relative=relative, absolute=absolute, z=3,
    )  # fmt: skip
run.check("rho", learned["rho"], reference=kaufman, kind="exact", relative=0.005, z=3)

# %% [markdown]
# The clock is another matter. An SDE of $(M,\rho)$ without memory cannot know that $M$ moves by domains,
# which are slower than any rate: its relaxation time grows no faster than the susceptibility, $L^{7/4}$, and
# not like $L^{2.17}$. What can be tested is the bound that this implies: averaging the rates over all states
# of equal $z$ never makes a reversible process slower. The distance to the bound is what memory would add.

# %% tags=["nbval-ignore-output"]
seen = true_relaxation.value < longest  # else it is a lower bound itself, and bounds nothing
bound = partial(run.check, below=true_relaxation.value, z=3) if seen else run.report
bound("relaxation_time", learned["relaxation_time"], reference=true_relaxation, kind="simulation")
samples = {
    "cluster updates": (chains.observables[..., 0], md.plotting.REFERENCE),
    "the snapshots": (magnetizations["healed"], md.plotting.MUTED),
}
run.figure(md.plotting.law_and_potential(model.law(), samples, title="What is learned"), "law")

# %% [markdown]
# ## 4. The same from sampled patch pairs, λ = K
#
# All $K$ patches of every snapshot, each continued by itself for $\delta t$ among its frozen neighbours.
# Patches evolve reversibly whatever $\delta t$, so the law does not suffer from a long one and the noise
# is less. The estimate is as honest, and far noisier: the drift drowns in the noise of the increments.

# %% tags=["nbval-ignore-output"]
with run.timed("sampled"):
    pairs = criticality.sampled_increments(
        system, last, run.patch_side, run.patch_duration, run.continuations, run.stream("pairs")
    )
    sampled = criticality.law_estimates(pairs, system)
for name in criticality.QUANTITIES:
    run.check(f"sampled.{name}", sampled[name], reference=truth[name], kind="simulation", z=3)
print({name: str(estimate) for name, estimate in sampled.items()})

# %% [markdown]
# ## 5. Rollouts
#
# Paths of the learned SDE from latents of the snapshots; their second half must have the law that its
# potential says. (Not in the runs of a sweep.)

# %% tags=["nbval-ignore-output"]
drawn = run.rollouts if everything else 2
span = (8 if everything else 0.1) * learned["relaxation_time"].value
times = np.linspace(0, span, 401)
with run.timed("rollout"):
    begin = system.observables(last.states[:drawn])
    paths = criticality.rollouts(model, begin, times, run.stream("rollout"))
late = np.abs(paths[:, 200:, 0])
if everything:
    run.check(
        "rollout.abs_magnetization", md.statistics.mean_estimate(late.mean(axis=1)),
        reference=model.law().mean(np.abs), kind="exact", relative=0.02, z=3,
    )  # fmt: skip
run.figure(md.plotting.rollouts_and_law(times, paths[..., 0], model.law()), "rollouts")

# %% [markdown]
# ## 6. How long must LocalRelax be?
#
# Too short and the conditional averages are those of healing copies; long enough, longer changes nothing:
# twice as long must give the same. The snapshots' own moments (grey) are not what is quoted. (Not in the
# runs of a sweep.)

# %% tags=["nbval-ignore-output"]
durations = [run.relax_duration / factor for factor in (20, 5, 2, 1, 0.5)] if everything else []
with run.timed("LocalRelax"):
    healing = criticality.against_relaxation(
        system, small, durations, run.snapshots, max(run.rounds // 8, 10), run.stream("heal")
    )
references = {name: truth[name] for name in criticality.QUANTITIES}
figure = md.plotting.against_relaxation(healing, references)
run.figure(figure, "local_relax") if everything else None
for name in criticality.QUANTITIES if everything else []:
    once, twice = (healing[duration][1][name] for duration in durations[-2:])
    run.check(f"local_relax.{name}", twice, reference=once, kind="simulation", z=3, listed=False)

# %% [markdown]
# ## 7. Results

# %% tags=["nbval-ignore-output"]
run.table()

# %%
run.finish()
