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
# # Learn the drift of a driven chain that no small chain has
#
# Particles $X_1,\dots,X_N$ in a row feel friction $\gamma$, springs $\kappa$ to their neighbours and
# noise $\sigma$; a force $F$ pulls on the first one only:
#
# $$dX_i = \left[-\gamma X_i + \kappa(X_{i-1}-X_i) + \kappa(X_{i+1}-X_i) + F\,\delta_{i1}\right]dt + \sigma\,dW_i .$$
#
# The springs cancel in the mean position $m = \frac1N\sum_i X_i$, which obeys exactly
#
# $$dm = \left(-\gamma m + \frac{F}{N}\right)dt + \frac{\sigma}{\sqrt N}\,dB .$$
#
# **Question.** A small chain of $N$ particles and a large one of $KN$ have different drifts, $F/N$
# and $F/(KN)$. Can the large law be learned by moving one patch of $N$ particles at a time?
# (Paper: arXiv 2511.12842, App. D.2, table 2.)

# %% tags=["parameters"]
preset = None  # "smoke" (60 s), "quick", "paper"; None: MACRODYN_PRESET or "quick"
seed: int = 0  # of all randomness
output_dir = None  # folder of results.json; None: one of its own in papermill_runs
n_small: int = 10  # particles of the small chain and of a patch
n_patches: int = 10  # patches of the large chain
force: float = 15  # on the first particle
noise: float = 1  # amplitude per particle
friction: float = 0.1  # 1 over time
coupling: float = 1  # 1 over time
trajectories = None  # simulated runs of each chain
members = None  # independent fits, for standard errors

# %%
from macrodyn_lib import study

run = study.begin("01_linear_chain", globals())

# %% tags=["nbval-ignore-output"]
import dataclasses

import numpy as np

import macrodyn_lib as md
from macrodyn_lib.exact import LinearChainExact
from macrodyn_lib.rollouts import rollout_ensemble
from macrodyn_lib.statistics import mean_estimate

against_exact = {"kind": "exact", "z": 4}  # PASS: within 4 standard errors of the exact value

# %% [markdown]
# ## 1. Two chains and their exact laws

# %% tags=["nbval-ignore-output"]
physics = {name: getattr(run, name) for name in ("friction", "coupling", "noise", "force")}
sizes = {"small": run.n_small, "large": run.n_small * run.n_patches}
systems = {name: md.LinearChain(n_particles=size, **physics) for name, size in sizes.items()}
exact = {name: LinearChainExact(n_particles=size, **physics) for name, size in sizes.items()}
for name, law in exact.items():
    print(f"{name}: dm = ({law.slope:.4g} m + {law.bias:.4g}) dt + {law.diffusion:.4g} dB")

# %% [markdown]
# ## 2. Is the simulator right?
#
# The exact mean and variance of $m(t)$, for the Euler–Maruyama scheme with its step, against direct
# simulations of the large chain that start from rest.

# %% tags=["nbval-ignore-output"]
large, step = systems["large"], systems["large"].time_step
times = step * np.unique(np.geomspace(1, 400, 40).astype(int))
rest = np.zeros((run.trajectories // 4, large.n_particles))
with run.timed("direct simulation"):
    direct = large.simulate(rest, times, run.stream("direct")).observables[..., 0]
true_mean = exact["large"].mean(times, start=0.0, time_step=step)
true_variance = exact["large"].std(times, time_step=step) ** 2

# %% tags=["nbval-ignore-output"]
for index in (10, 25, len(times) - 1):
    at = f"step{round(times[index] / step)}"
    positions = direct[:, index]
    squares = np.square(positions - true_mean[index])
    for name, values, reference in (
        ("mean_m", positions, true_mean[index]),
        ("variance_m", squares, true_variance[index]),
    ):
        estimate = mean_estimate(values)
        run.check(f"direct.{name}.{at}", estimate, reference=float(reference), **against_exact)

# %% [markdown]
# ## 3. Snapshots and patch pairs
#
# Both chains are simulated from flat profiles far from equilibrium (no upsampling here, as in the
# paper). From each snapshot every patch takes one time step by itself, twice, its neighbours frozen:
# for the small chain the one patch is the whole chain, which is the conventional method.

# %% tags=["nbval-ignore-output"]
settings, pairs = {}, {}
with run.timed("sample"):
    for name, system in systems.items():
        settings[name] = {
            "times": np.linspace(0, min(2 / run.friction, 500 * system.time_step), 11),
            "spread": 20 * exact[name].stationary_std,
        }
        pairs[name] = md.pipeline.simulate_patch_pairs(
            system, md.Patching(side=run.n_small), duration=system.time_step,
            trajectories=run.trajectories, rng=run.stream(name, "pairs"), description=name,
            **settings[name],
        )  # fmt: skip
        print(f"{name}: {len(pairs[name])} twin pairs, K = {pairs[name].n_patches}")

# %% [markdown]
# ## 4. Fit $dm = (a\,m + b)\,dt + c\,dB$ with covariance $K c^2\,\delta t$
#
# The trajectories are dealt into independent shares; each share gives one maximum-likelihood fit, and
# their spread the standard error. $K$ is 1 for the small chain.

# %% tags=["nbval-ignore-output"]
with run.timed("fit"):
    fits = {
        name: md.fit_ensemble(
            md.encode(pairs[name]),
            md.LinearSDE(1),
            members=run.members,
            rng=run.stream(name, "fit"),
        )
        for name in systems
    }
coefficients = {
    name: np.array([[c.item() for c in member.linear_coefficients()] for member in members])
    for name, members in fits.items()
}

# %% tags=["nbval-ignore-output"]
for name, law in exact.items():
    for column, quantity in enumerate(("slope", "bias", "diffusion")):
        estimate = mean_estimate(coefficients[name][:, column])
        run.check(f"{name}.{quantity}", estimate, reference=getattr(law, quantity), **against_exact)

# %% [markdown]
# The learned drift and diffusion of the large chain, over the range of its snapshots:

# %% tags=["nbval-ignore-output"]
m = np.linspace(*np.quantile(pairs["large"].observables, [0, 1]), 50)
drifts, covariances = (
    np.array([values(member).ravel() for member in fits["large"]])
    for values in (lambda f: f.drift(m[:, None]), lambda f: f.covariance(m[:, None]))
)
law = exact["large"]
reference = (law.slope * m + law.bias, np.full(len(m), law.diffusion**2))
figure = md.plotting.drift_and_diffusion(
    m, {"ours": (drifts, covariances)}, reference, observable="m", n_sites=sizes["large"]
)
run.figure(figure, "drift_and_diffusion")

# %% [markdown]
# Beside the paper's own numbers (table 2), which hold for the default parameters only:

# %% tags=["nbval-ignore-output"]
published = {"slope": [-0.1047, -0.0929], "bias": [1.5002, 0.1419], "diffusion": [0.3122, 0.1]}
names = [f"{size}.{quantity}" for size in ("small", "large") for quantity in published]
columns = ["value", "standard_error", "reference"]
table = run.table().loc[names, columns].astype(float)
table["published"] = [column[k] for k in (0, 1) for column in published.values()]
for column in ("value", "published"):
    table[f"{column} / exact - 1"] = (table[column] / table["reference"] - 1).map("{:+.2%}".format)
table.rename(columns={"value": "ours", "reference": "exact"})

# %% [markdown]
# ## 5. Why it is not enough to rescale the noise of the small chain
#
# Dividing the small chain's noise by $\sqrt K$ gives the fluctuations of the large chain, around the
# wrong mean: the force is shared by $N$ particles there, by $KN$ here. No factor on the noise can
# repair a drift.

# %% tags=["nbval-ignore-output"]
horizon = np.linspace(0, 5 / run.friction, 101)
rescaled = [dataclasses.replace(m, noise_factor=run.n_patches**-0.5) for m in fits["small"]]
candidates = {"ours": fits["large"], "small, noise / √K": rescaled, "small": fits["small"]}
with run.timed("rollout"):
    rollouts = {
        name: rollout_ensemble(
            members,
            start=np.zeros((1, 1)),
            replicas=20,
            times=horizon,
            rng=run.stream("rollout", name),
        )
        for name, members in candidates.items()
    }

# %% tags=["nbval-ignore-output"]
curves = {name: (p.means()[0][0, :, 0], p.stds()[0, :, 0]) for name, p in rollouts.items()}
law = exact["large"]
figure = md.plotting.mean_and_std_paths(
    horizon,
    curves,
    (law.mean(horizon, start=0.0), law.std(horizon)),
    observable="m",
    unit="1 / rate",
    title=f"Chain of {sizes['large']} particles, from rest",
)
run.figure(figure, "paths")

# %% [markdown]
# ## 6. Why twins
#
# The driven patch drifts unlike all others. If each patch is continued only once, the spread of the
# drifts between patches counts as noise: to the covariance rate $\Sigma$ it adds
# $\mathrm{Var}_I(\text{drift}_I)\,\delta t/K$, a term that the paper's proof drops. The exact patch
# drifts predict the bias; two continuations of the same patch remove it.

# %% tags=["nbval-ignore-output"]
sample = md.pipeline.simulate_snapshots(
    large, trajectories=min(run.trajectories, 2000), rng=run.stream("spread"), **settings["large"]
)
spread = exact["large"].patch_drift(sample.states, run.n_patches).var(axis=1).mean()
predicted = np.sqrt(exact["large"].diffusion ** 2 + spread * step / run.n_patches)
single = md.encode(dataclasses.replace(pairs["large"], twin_increments=None))
with run.timed("fit"):
    without = md.fit_ensemble(
        single, md.LinearSDE(1), members=run.members, rng=run.stream("large", "fit")
    )
estimate = mean_estimate(np.array([m.linear_coefficients()[2].item() for m in without]))
name = "large.diffusion_without_twins"
run.check(name, estimate, reference=float(predicted), **against_exact)

# %% tags=["nbval-ignore-output"]
shown = {
    "with twins": run.metrics["large.diffusion"],
    "without twins": run.metrics["large.diffusion_without_twins"],
}
figure = md.plotting.estimates_beside_references(
    {name: (m.value, m.standard_error, m.reference) for name, m in shown.items()},
    exact["large"].diffusion,
    quantity="diffusion c",
    title="One continuation a patch is too noisy",
)
run.figure(figure, "twins")

# %% [markdown]
# ## 7. Results

# %% tags=["nbval-ignore-output"]
run.table()

# %%
run.finish()
