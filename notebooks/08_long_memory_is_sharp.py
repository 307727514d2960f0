# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Long memory is sharp
#
# A state that remembers for $1 / (1 - |\lambda|)$ steps has no vanishing and no exploding gradient
# as $|\lambda|$ goes to 1, and is still hard to learn: the smallest change of $\lambda$ changes all
# of what it remembers (the curse of memory, [arXiv:2405.21064](https://arxiv.org/abs/2405.21064)).
# Here the loss is looked at whose only fault is a $\lambda$ that is not quite the teacher's,
#
# $$L(p) = \tfrac{1}{2} E |h_p - h_{p^*}|^2 / E |h_{p^*}|^2, \qquad
#   h_t = \lambda h_{t-1} + \gamma x_t,$$
#
# in closed form, by the covariance of `seqjax.theory.curse_of_memory`. The sliders need no kernel.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML, display

from seqjax.theory import curse_of_memory
from seqjax.tools.knobs import knobs

jax.config.update("jax_enable_x64", True)
FORMS = curse_of_memory.PARAMETRISED


def loss(name, p, teacher, rho=0.0):
    """Of parameters p [2] of modulus and phase, against those of the teacher."""
    one = FORMS[name]
    ours, both, theirs = (
        curse_of_memory.covariance(one, *pair, rho)
        for pair in ((p, p), (p, teacher), (teacher, teacher))
    )
    return (ours / 2 - both + theirs / 2) / theirs


# %% [markdown]
# ## The valley
#
# One parameter is moved by as much as 1 in either direction, from the teacher's in the middle.
# Three things to choose: how $\lambda$ and $\gamma$ are made of the parameters, which of them is
# moved, and how near the teacher's modulus is to 1. Where $\lambda$ itself is the parameter, the
# valley becomes a slit; with $|\lambda| = \exp(-\exp(\nu))$ its width stays what it is, for any
# memory. No form does that for the phase.

# %%
names = ["lambda", "normalised", "exponential", "normalised, exponential"]
gaps = [0.1, 0.03, 0.01, 0.003, 0.001]
shifts = jnp.linspace(-1, 1, 161)


def valley(name, which, gap):
    """[161]: the loss where parameter `which` is moved, at most 3, and 3 beyond |lambda| = 1."""
    teacher = jnp.array([FORMS[name].at(1 - gap), 0.0])
    moved = teacher[None] + shifts[:, None] * jax.nn.one_hot(which, 2)[None]
    inside = jnp.abs(FORMS[name].modulus(moved[:, 0])) < 1
    found = jax.jit(jax.vmap(lambda p: loss(name, p, teacher)))(moved)
    return jnp.where(inside, jnp.minimum(found, 3.0), 3.0)


valleys = np.stack([
    [[valley(name, which, gap) for gap in gaps] for which in (0, 1)] for name in names
])  # fmt: skip
page = knobs(
    valleys,
    {"form": names, "moved": ["modulus", "phase"], "teacher's 1 - |λ|": gaps},
    low=0, high=1.5,
    caption="Loss by the parameter, moved by -1 to 1; off the picture beyond |λ| = 1.",
)  # fmt: skip
display(HTML(page))

# %% [markdown]
# How wide is a valley? The loss is below a tenth, that is, the state is right to about 45 %, for so
# far to the left of the teacher's parameter:


# %%
def width(name, which, gap):
    """The shift, down from the teacher's parameter, at which the loss is first a tenth."""
    teacher = jnp.array([FORMS[name].at(1 - gap), 0.0])
    sign = -1.0 if name in ("lambda", "normalised") or which else 1.0  # towards shorter memory
    away = jnp.geomspace(1e-6, 3, 4000)
    moved = teacher[None] + sign * away[:, None] * jax.nn.one_hot(which, 2)[None]
    found = jax.jit(jax.vmap(lambda p: loss(name, p, teacher)))(moved)
    return float(away[jnp.argmax(found > 0.1)])


def power(values):
    return np.polyfit(np.log(gaps[1:]), np.log(values[1:]), 1)[0]


figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
powers = {}
for which, axis in enumerate(axes):
    for name in names:
        widths = [width(name, which, gap) for gap in gaps]
        powers[name, which] = power(widths)
        axis.loglog(gaps, widths, "o-", label=name)
        print(
            f"{('modulus', 'phase')[which]:8} {name:24} width ~ (1 - |λ|)^{powers[name, which]:.2f}"
        )
    axis.set(xlabel="1 - |λ|", title=("modulus", "phase")[which] + " moved")
axes[0].set_ylabel("width of the valley")
axes[0].legend(fontsize=7)
figure.tight_layout()
plt.show()
assert all(abs(powers[name, 0]) < 0.05 for name in names if "exponential" in name)
assert all(abs(powers[name, 1] - 1) < 0.05 for name in names)

# %% [markdown]
# ## What it costs a learner
#
# Gradient descent on this loss, from a memory that is half as long as the teacher's, at *one*
# rate: a tenth of the inverse curvature where $1 - |\lambda| = 0.1$. With $\lambda$ as the
# parameter that rate throws it out of the unit circle where the memory is longer; a rate for the
# longest one is $10^4$ times smaller, and leaves the short ones where they are. A layer has modes
# of all lengths, and one rate. With the exponential form the same rate takes the same steps for
# all of them.


# %%
def steps_needed(name, gap, limit=2000):
    """Of gradient descent until the loss is 1e-3; 0 where |lambda| reaches 1 before, or never."""

    def of_modulus(r, gap=gap):
        return loss(name, jnp.array([r, 0.0]), jnp.array([FORMS[name].at(1 - gap), 0.0]))

    rate = 0.1 / jax.hessian(lambda r: of_modulus(r, gaps[0]))(jnp.asarray(FORMS[name].at(0.9)))

    def inside(r):
        return jnp.abs(FORMS[name].modulus(r)) < 1

    def go_on(carry):
        r, n = carry
        return inside(r) & (of_modulus(r) > 1e-3) & (n < limit)

    def descend(carry):
        r, n = carry
        return r - rate * jax.grad(of_modulus)(r), n + 1

    start = jnp.asarray(FORMS[name].at(1 - 2 * gap), float)
    r, n = jax.jit(lambda r: jax.lax.while_loop(go_on, descend, (r, 0)))(start)
    return int(n) if inside(r) and n < limit else 0


counts = {name: [steps_needed(name, gap) for gap in gaps] for name in names}
print(f"{'1 - |λ| of the teacher':24}", *(f"{gap:>7}" for gap in gaps))
for name, found in counts.items():
    print(f"{name:24}", *(f"{n or 'lost':>7}" for n in found))
assert counts["lambda"][-1] == counts["normalised"][-1] == 0
both = counts["normalised, exponential"]
assert min(both) > 0 and max(both) - min(both) <= 2
