"""Oracles of networks with an external memory, cell by cell; see `test_equations`."""

from itertools import groupby, product

import numpy as np
from oracle_tools import sigmoid, softmax, softplus


def controlled(W, x, controller, hidden, reads, width, use):
    """y_t = V [o_t; r_t] + c, where `use` makes o_t into the rows r_t of all read heads."""
    h, c, r, ys = np.zeros(hidden), np.zeros(hidden), np.zeros(reads * width), []
    for x_t in x:
        if controller == "feed_forward":
            h = np.tanh(W.affine("W", x_t) + W.linear("R", r))
        else:
            a = W.affine("cell.W", x_t) + W.linear("R", r) + W["cell.U"] @ h
            i, f, g, o = np.split(a, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        r = np.concatenate(use(h))
        ys.append(W.affine("V", np.concatenate([h, r])))
    return np.stack(ys)


def parts(vector, *sizes):
    assert sum(sizes) == len(vector)
    return np.split(vector, np.cumsum(sizes)[:-1])


def similar(k, M, eps, inside=0.0):
    sizes = [np.sqrt(np.sum(v * v) + inside) for v in (k, *M)]
    return np.array([k @ m / (sizes[0] * size + eps) for m, size in zip(M, sizes[1:])])


def ntm(
    W, x, *, hidden, cells, width, heads="rw", shifts=3, controller="lstm", memory_init="constant",
    squashed=False, eps=1e-8, **_,
):  # fmt: skip
    """arXiv:1410.5401, eq. 2 to 9, with s by the distance that it moves a head."""
    N, squash = cells, np.tanh if squashed else np.array
    M = np.full((N, width), 1e-6) if memory_init == "constant" else W["M_0"].copy()
    at = [softmax(w) for w in W["w_0"]]
    farthest = shifts // 2

    def focus(head, emitted, M):
        k, (beta,), (g,), s, (gamma,) = parts(emitted, width, 1, 1, shifts, 1)
        w = sigmoid(g) * softmax(softplus(beta) * similar(squash(k), M, eps))
        w += (1 - sigmoid(g)) * at[head]
        moved = np.zeros(N)
        for j, (d, share) in product(range(N), enumerate(softmax(s))):
            moved[(j + farthest - d) % N] += w[j] * share
        power = moved ** (1 + softplus(gamma))
        at[head] = power / power.sum()

    def use(o):
        nonlocal M
        head, reads = 0, []
        for run, (letter, letters) in enumerate(groupby(heads)):
            count = len(list(letters))
            kept, added = np.ones_like(M), np.zeros_like(M)
            for emitted in np.split(W.affine(f"E.{run}", o), count):
                size = len(emitted) - (2 * width if letter == "w" else 0)
                focus(head, emitted[:size], M)
                if letter == "r":
                    reads.append(sum(at[head][n] * M[n] for n in range(N)))
                else:
                    e, a = np.split(emitted[size:], 2)
                    kept *= 1 - np.outer(at[head], sigmoid(e))
                    added += np.outer(at[head], squash(a))
                head += 1
            M = M * kept + added
        return reads

    return controlled(W, x, controller, hidden, heads.count("r"), width, use)


def dnc(
    W, x, *, hidden, cells, width, read_heads, write_heads=1, controller="lstm",
    strengths="oneplus", squashed=False, soft_lengths=True, eps=1e-6, **_,
):  # fmt: skip
    """Methods of the paper."""
    N, R, H = cells, read_heads, write_heads
    squash, least = np.tanh if squashed else np.array, 1 if strengths == "oneplus" else 0
    M, u, L, p = np.zeros((N, width)), np.zeros(N), np.zeros((H, N, N)), np.zeros((H, N))
    w_w, w_r = np.zeros((H, N)), np.zeros((R, N))

    def content(k, beta):
        return softmax((least + softplus(beta)) * similar(squash(k), M, eps, eps * soft_lengths))

    def allocation(u):
        a, before = np.zeros(N), 1.0
        for n in sorted(range(N), key=lambda n: u[n]):
            taken = eps + (1 - eps) * u[n]
            a[n], before = (1 - taken) * before, before * taken
        return a

    def use(o):
        nonlocal M, u, w_r
        sizes = (R * width, R, H * width, H, H * width, H * width, R, H, H, R * (2 * H + 1))
        k_r, beta_r, k_w, beta_w, e, v, f, g_a, g_w, pi = parts(W.affine("E", o), *sizes)
        for n in range(N):
            u[n] += (1 - u[n]) * (1 - np.prod(1 - w_w[:, n]))
            u[n] *= np.prod([1 - sigmoid(f[i]) * w_r[i, n] for i in range(R)])
        taken = u.copy()
        for h, (k, beta) in enumerate(zip(np.split(k_w, H), beta_w)):
            a, gate_a, gate_w = allocation(taken), sigmoid(g_a[h]), sigmoid(g_w[h])
            taken += (1 - taken) * gate_a * gate_w * a
            w_w[h] = gate_w * (gate_a * a + (1 - gate_a) * content(k, beta))
        for w, erased in zip(w_w, np.split(e, H)):
            M = M * (1 - np.outer(w, sigmoid(erased)))
        for w, value in zip(w_w, np.split(v, H)):
            M = M + np.outer(w, squash(value))
        for h, w in enumerate(w_w):
            for i, j in product(range(N), range(N)):
                L[h, i, j] = (1 - w[i] - w[j]) * L[h, i, j] + w[i] * p[h, j] if i != j else 0
            p[h] = (1 - w.sum()) * p[h] + w
        new = []
        for w, k, beta, mode in zip(w_r, np.split(k_r, R), beta_r, np.split(pi, R)):
            back, found, forth = np.split(softmax(mode), [H, H + 1])
            new.append(found[0] * content(k, beta))
            new[-1] = new[-1] + sum(back[h] * L[h].T @ w + forth[h] * L[h] @ w for h in range(H))
        w_r = np.stack(new)
        return list(w_r @ M)

    return controlled(W, x, controller, hidden, R, width, use)


CASES = [
    ("ntm", ntm, dict(hidden=3, cells=5, width=2)),
    (
        "ntm",
        ntm,
        dict(
            hidden=3,
            cells=5,
            width=2,
            heads="wwrrw",
            shifts=4,
            controller="feed_forward",
            memory_init="learned",
            squashed=True,
        ),
    ),
    ("dnc", dnc, dict(hidden=3, cells=5, width=2, read_heads=2)),
    (
        "dnc",
        dnc,
        dict(
            hidden=3,
            cells=4,
            width=2,
            read_heads=2,
            write_heads=2,
            controller="feed_forward",
            strengths="softplus",
            squashed=True,
            soft_lengths=False,
        ),
    ),
]
