"""What a piece of the steps does to a state: the oracle is one call of all steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from test_axis import numbers

import seqjax
from seqjax.core import axis as over
from seqjax.core.axis import Turned, combine, relay, replay, step_after, summarise
from seqjax.core.monoid import Monoid, dense, diagonal
from seqjax.ops import OPS
from seqjax.ops.op import Spec
from seqjax.testing import distance
from seqjax.tools.hlo import sent

B, T = 2, 24
CUTS = [0, 1, 4, 16, 24]  # a piece of one step, and one that is longer than windows
SUMMED = [name for name, op in OPS.items() if op.span is not None]


def thorough_but(*cheap):
    """The last of these as a case; of `make test-all`, unless it is one of the others."""
    *cheap, name = cheap
    return pytest.param(name, marks=() if name in cheap else pytest.mark.thorough)


MESH = jax.make_mesh((4,), ("time",), axis_types=(jax.sharding.AxisType.Auto,))


def arguments_of(name, steps=T, options=None):
    """Those with a time axis, the state, and the rest; of the smallest problem of an op."""
    spec = min(OPS[name].specs, key=lambda spec: spec.sizes["T"])
    sizes, options = (
        {**spec.sizes, "B": B, "T": steps},
        spec.options if options is None else options,
    )
    arguments = OPS[name].example(Spec("", sizes, options), 0)
    arguments = jax.tree.map(
        lambda v: jnp.asarray(v) if isinstance(v, np.ndarray) else v, arguments
    )
    state = arguments.pop("state")
    xs = {k: v for k, v in arguments.items() if getattr(v, "shape", ())[:2] == (B, steps)}
    return xs, state, {k: v for k, v in arguments.items() if k not in xs}


def flags():
    resets = np.zeros((B, T), bool)
    resets[0, [1, 3, 20]] = resets[1, [16, 17]] = True
    mask = np.ones((B, T), bool)
    mask[0, [0, 16]] = mask[1, 4:16] = False
    return dict(resets=jnp.asarray(resets), mask=jnp.asarray(mask))


def both_agree(found, expected, *given):
    """In values, and in gradients of a sum of sines."""

    def of(run):
        def number(*given):
            y = run(*given)
            leaves = [
                jnp.abs(y) for y in jax.tree.leaves(y) if jnp.issubdtype(y.dtype, jnp.inexact)
            ]
            return sum(jnp.sum(jnp.sin(y)) for y in leaves), y

        arguments = tuple(range(len(given)))
        return jax.jit(jax.grad(number, arguments, has_aux=True, allow_int=True))(*given)

    assert distance(*(numbers(of(run)) for run in (found, expected))) < 1e-10


@pytest.mark.parametrize(
    "name", [thorough_but("linear_scan", "gated_delta_rule", name) for name in SUMMED]
)
def test_pieces_one_after_the_other(name):
    """Summaries alone lead to the last state, in whatever order they are combined, and each piece
    replayed from the state before it has the outputs of the whole."""
    xs, state, rest = arguments_of(name)
    op, beside = getattr(seqjax, name), flags()

    def pieces(xs, state):
        cut = [
            jax.tree.map(lambda x, a=a, z=z: x[:, a:z], {**xs, **beside})
            for a, z in zip(CUTS, CUTS[1:])
        ]
        found = [summarise(op, **piece, **rest, state=state) for piece in cut]
        p, q, r, s = found
        ends = [p.then(q.then(r.then(s))).act(state), p.then(q).then(r).then(s).act(state)]
        ys, h = [], state
        for piece, summary in zip(cut, found):
            ys.append(replay(op, h, **piece, **rest)[0])
            h = summary.act(h)
        return jnp.concatenate(ys, 1), [*ends, h]

    def whole(xs, state):
        y, last = op(**xs, **beside, **rest, state=state)
        return y, [last] * 3

    both_agree(pieces, whole, xs, state)


@pytest.mark.thorough
def test_a_monoid_of_ones_own():
    """Quaternions of unit length act on vectors; with resets, of which a scan goes to its start."""

    def times(p, q):
        a, u = p[..., :1], p[..., 1:]
        b, v = q[..., :1], q[..., 1:]
        real = a * b - jnp.sum(u * v, -1, keepdims=True)
        return jnp.concatenate([real, a * v + b * u + jnp.cross(u, v)], -1)

    def act(q, h):
        zero = jnp.zeros((1,), h.dtype)
        conjugate = q * jnp.asarray([1, -1, -1, -1], q.dtype)
        return times(times(q, jnp.concatenate([zero, h])), conjugate)[1:]

    turns = Monoid(lambda p, q: times(q, p), lambda q: jnp.eye(4, dtype=q.dtype)[0], act)
    draw = np.random.default_rng(0)
    q = draw.normal(size=(T, 4))
    q, h = jnp.asarray(q / np.linalg.norm(q, axis=1, keepdims=True)), jnp.asarray([1.0, 2.0, 3.0])
    resets = flags()["resets"][0]

    def pieces(q, h):
        ys, now = [], h
        for a, z in zip(CUTS, CUTS[1:]):
            given = turns, q[a:z], h
            ys.append(replay(seqjax.scan, now, *given, resets=resets[a:z])[0])
            now = summarise(seqjax.scan, *given, resets=resets[a:z]).act(now)
        return jnp.concatenate(ys), now

    both_agree(pieces, lambda q, h: seqjax.scan(turns, q, h, resets=resets), q, h)
    split = jax.shard_map(
        lambda q, r, h: seqjax.scan(turns, q, h, resets=r, axis="time"),
        mesh=MESH, in_specs=(P("time"), P("time"), P()), out_specs=(P("time"), P()),
    )  # fmt: skip
    both_agree(
        lambda q, h: split(q, resets, h), lambda q, h: seqjax.scan(turns, q, h, resets=resets), q, h
    )


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("count", [thorough_but(5, n) for n in (1, 2, 3, 5, 8, 9)])
def test_the_exchange(count, scanned, monkeypatch):
    """Of any number of devices, which a mapped axis stands for; matrices do not commute."""
    monkeypatch.setattr(over, "gathers", lambda *_: not scanned)
    draw = np.random.default_rng(0)
    A = jnp.asarray(draw.normal(size=(count, 3, 3)))
    b, h = jnp.asarray(draw.normal(size=(count, 3))), jnp.asarray(draw.normal(size=3))
    cut = jnp.arange(count) == 1  # what follows it needs all rounds
    order = {False: range(count), True: range(count)[::-1]}

    def local(A, b, cut, h, reverse):
        return combine(over.Summary((A, b), cut, jnp.ones(3), dense), h, "time", reverse=reverse)

    def one_by_one(A, b, h, reverse):
        before = {}
        first = h
        for n in order[reverse]:
            before[n] = h
            h = A[n] @ jnp.where(cut[n], jnp.ones_like(first), h) + b[n]
        return jnp.stack([before[n] for n in range(count)]), h

    for reverse in (False, True):

        def mapped(A, b, h, reverse=reverse):
            run = jax.vmap(partial(local, reverse=reverse), (0, 0, 0, None), axis_name="time")
            before, last = run(A, b, cut, h)
            return before, last[0]

        both_agree(mapped, partial(one_by_one, reverse=reverse), A, b, h)


def traced(local, spec, devices):
    """The program of so many devices, which need not be there, as a text."""
    mesh = jax.sharding.AbstractMesh((devices,), ("time",))
    run = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec)
    return lambda *given: str(jax.make_jaxpr(run)(*given))


def test_what_is_gathered_and_what_is_scanned():
    """By the devices and the bytes of an element."""

    def collectives(devices, numbers):
        def local(a, b):
            return combine(over.Summary((a, b), None, None, diagonal), b, "time")[0]

        x = jnp.ones((devices, numbers), jnp.float32)
        text = traced(local, P("time"), devices)(x, x)
        return text.count("all_gather["), text.count("ppermute[")

    assert collectives(4, 1 << 20) == (2, 0)
    assert collectives(8, 1 << 10) == (2, 0)
    assert collectives(8, 1 << 11) == (0, 2 * (1 + 3))  # a and b: a shift, ceil(log2 7) rounds
    assert collectives(5, 1 << 20) == (0, 2 * (1 + 2))


WINDOWED = ["short_convolution", "softmax_attention"]


@pytest.mark.parametrize("name", [thorough_but("short_convolution", n) for n in WINDOWED])
@pytest.mark.parametrize(
    "count, steps, messages",
    [
        (8, 1, 4),
        pytest.param(5, 2, 3, marks=pytest.mark.thorough),
        pytest.param(3, 6, 1, marks=pytest.mark.thorough),
    ],
)
def test_the_halo_of_a_window(name, count, steps, messages, monkeypatch):
    """Of pieces of one step, shorter than the window and longer: with resets, and the messages."""
    monkeypatch.setattr(over, "GATHERED", 0)
    xs, state, rest = arguments_of(name, count * steps)
    xs, state = jax.tree.map(lambda x: x[0], (xs, state))
    if name == "short_convolution":  # a kernel [4, D] sees three steps before, a cache has five
        rest["kernel"] = jnp.concatenate([rest["kernel"]] * 2)[2:]
        state = jnp.concatenate([state, state])[:5]
    resets = jnp.zeros(count * steps, bool).at[jnp.array([2, 7])].set(True)

    op = getattr(seqjax, name)

    def local(xs, resets, state=state):
        return op(**xs, **rest, resets=resets, state=state, axis="time")

    def mapped(xs, state):
        pieces = jax.tree.map(lambda x: x.reshape(count, steps, *x.shape[1:]), (xs, resets))
        y, last = jax.vmap(partial(local, state=state), axis_name="time")(*pieces)
        return y.reshape(-1, *y.shape[2:]), jax.tree.map(lambda x: x[0], last)

    def whole(xs, state):
        return op(**xs, **rest, resets=resets, state=state)

    both_agree(mapped, whole, xs, state)
    program = traced(lambda *given: local(*given)[0], P("time"), count)(xs, resets)
    summary = summarise(op, **xs, **rest, resets=resets, state=state)
    assert program.count("ppermute[") == messages * len(
        jax.tree.leaves((summary.cut, summary.element))
    )


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("name", [thorough_but("linear_scan", name) for name in OPS])
def test_what_is_exchanged_does_not_depend_on_the_steps(name, scanned, monkeypatch):
    """Bytes of the collectives of the compiled program, of values and of gradients."""
    monkeypatch.setattr(over, "gathers", lambda *_: not scanned)

    def bytes_of(steps, local=None):
        xs, state, rest = arguments_of(name, steps)
        call = local or (lambda xs, h: getattr(seqjax, name)(**xs, **rest, state=h, axis="time"))
        run = jax.shard_map(
            call, mesh=MESH, in_specs=(P(None, "time"), P()),
            out_specs=(P(None, "time"), P()), check_vma=local is None,
        )  # fmt: skip

        def number(xs, state):
            y = jax.tree.leaves(run(xs, state))
            return sum(jnp.sum(jnp.abs(y)) for y in y if jnp.issubdtype(y.dtype, jnp.inexact))

        both = run, jax.grad(number, (0, 1), allow_int=True)
        return [sent(jax.jit(f).lower(xs, state).compile().as_text()) for f in both]

    short, long = bytes_of(16), bytes_of(32)
    if name in WINDOWED:  # longer pieces fill a window sooner
        assert all(0 < more <= less for more, less in zip(long, short, strict=True))
    else:
        assert short == long and 0 < short[0] < short[1]

    def gathering(xs, state):
        whole = jax.tree.map(lambda x: jax.lax.all_gather(x, "time", axis=1, tiled=True), xs)
        steps = jax.tree.leaves(xs)[0].shape[1]
        y, last = getattr(seqjax, name)(**whole, **arguments_of(name)[2], state=state)
        here = jax.lax.axis_index("time") * steps
        return jax.tree.map(lambda y: jax.lax.dynamic_slice_in_dim(y, here, steps, 1), y), last

    assert bytes_of(16, gathering)[0] != bytes_of(32, gathering)[0]


@pytest.mark.parametrize("count", [thorough_but(3, n) for n in (1, 3, 4)])
@pytest.mark.parametrize("back", [False, True])
def test_relay(count, back):
    """Any step h -> f(h, x), from the first piece to the last or the other way."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(count, 12 // count, 2)))
    h = jnp.asarray([0.3, -0.2])

    def piece(x, h):
        def step(h, x):
            h = jnp.tanh(x + h[::-1] * 0.9)
            return h, h

        return jax.lax.scan(step, h, x, reverse=back)[::-1]

    def mapped(x, h):
        name = Turned("time") if back else "time"
        run = jax.vmap(lambda x: relay(partial(piece, x), h, name), axis_name="time")
        y, last = run(x)
        return y, last[0]

    def whole(x, h):
        y, last = piece(x.reshape(-1, 2), h)
        return y.reshape(x.shape), last

    both_agree(mapped, whole, x, h)


def test_the_step_after():
    """The first kept one of later devices, of which one has none."""
    x = jnp.arange(8.0).reshape(4, 2)
    kept = jnp.asarray([[1, 1], [0, 0], [0, 1], [0, 0]], bool)
    found = jax.vmap(lambda x, k: step_after(x, k, -1.0, "time"), axis_name="time")(x, kept)
    assert found.tolist() == [5, 5, -1, -1]


def test_what_cannot_be_summarised_is_refused():
    z = jnp.zeros((4, 1, 2))
    with pytest.raises(
        ValueError, match=r"bounded_delta_rule cannot be summarised: .*no small sum"
    ):
        summarise(seqjax.bounded_delta_rule, z, z, z, z[..., 0])
    with pytest.raises(ValueError, match=r"linear_scan cannot be summarised: there are no steps"):
        summarise(seqjax.linear_scan, jnp.zeros((0, 2)), jnp.zeros((0, 2)))
    with pytest.raises(ValueError, match=r"summarise takes an op or seqjax.scan.*got 'tanh'"):
        summarise(jnp.tanh, z)
    split = jax.device_put(
        jnp.ones((4, 4, 2)), jax.NamedSharding(jax.make_mesh((2,), ("d",)), P("d"))
    )
    with pytest.raises(ValueError, match="linear_scan: summarise takes what one device has"):
        summarise(seqjax.linear_scan, split, split)
