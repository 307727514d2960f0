"""Graphs of a differentiable neural computer (Graves et al., Nature 538, 2016): triples, a question
about them, time to think, and an answer of triples.

Nodes are points drawn in the unit square, each with edges to the `degree` nodes next to it. Every
node has a label, all of them different, and every edge one that differs from those of the other
edges of its node. A step shows (source, edge, target), three one-hot labels, or a part of it:

    input    the edges, in random order | question | planning | zeros       3 labels + 2 channels
    target                                                    | path        3 labels

The last two channels are 1 where the question begins, and where an answer is due. The paper has up
to 1000 labels, as three digits each; planning takes what is left of the length.

    graph_traversal    (source, edge, ) and ( , edge, ) after it: the triples on that way, `path`
    shortest_path      (source, , goal): the triples of a shortest way from one to the other, of at
                       most `path`; where there are several, the edge of the smallest label first

For both, length = nodes degree + question + planning + path, with a question of `path` steps or
one. Baseline: each label as often as it is, loss 3 (log L + (L - 1) log(L / (L - 1))) of L labels.
Length generalisation: longer ways in larger graphs, by options; a longer length is more planning.
"""

from math import log
from typing import Annotated

import jax
import jax.numpy as jnp

from seqjax.answers import Bernoullis
from seqjax.core.ranges import Count, Range
from seqjax.tasks.synthetic.bits import beside, where
from seqjax.tasks.task import Batch, Features, Spec, Task, draw_distinct, sampler


def graph_traversal(
    *,
    nodes: Annotated[int, Range(2)] = 8,
    degree: Count = 2,
    labels: Count = 10,
    path: Count = 3,
) -> Task:
    """The way of `path` edges that the question spells out."""

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        key_g, key_s, key_e = jax.random.split(key, 3)
        neighbours, label, edges = draw_graph(key_g, batch, nodes, degree, labels)
        rows = jnp.arange(batch, dtype=jnp.int32)
        start = jax.random.randint(key_s, (batch,), 0, nodes, jnp.int32)
        taken = jax.random.randint(key_e, (path, batch), 0, degree, jnp.int32)

        def step(node, edge):
            target = neighbours[rows, node, edge]
            triple = label[rows, node], edges[rows, node, edge], label[rows, target]
            return target, jnp.stack(triple, axis=1)

        answer = jnp.swapaxes(jax.lax.scan(step, start, taken)[1], 0, 1)
        question = answer.at[:, :, 2].set(-1).at[:, 1:, 0].set(-1)
        due = jnp.ones((batch, path), bool)
        given = in_any_order(key_g, neighbours, label, edges)
        return lay_out("graph_traversal", length, labels, given, question, answer, due)

    return _task("graph_traversal", nodes, degree, labels, sample)


def shortest_path(
    *,
    nodes: Annotated[int, Range(2)] = 8,
    degree: Count = 2,
    labels: Count = 10,
    path: Count = 3,
) -> Task:
    """A shortest way between two nodes that are at most `path` edges apart."""

    @sampler
    def sample(key: jax.Array, batch: int, length: int) -> Batch:
        key_g, key_p = jax.random.split(key)
        neighbours, label, edges = draw_graph(key_g, batch, nodes, degree, labels)
        rows = jnp.arange(batch, dtype=jnp.int32)
        far = jnp.full((batch, nodes, nodes), nodes, jnp.int32)  # farther than any way is long
        far = jnp.where(jnp.eye(nodes, dtype=bool)[None], 0, far)

        def nearer(_, far):
            through = far[rows[:, None, None], neighbours]  # [B, nodes, degree, nodes]
            return jnp.minimum(far, 1 + jnp.min(through, axis=2))

        far = jax.lax.fori_loop(0, path, nearer, far)
        near = ((far > 0) & (far <= path)).reshape(batch, nodes * nodes)
        pair = jax.random.categorical(key_p, jnp.where(near, 0.0, -jnp.inf).astype(jnp.float32))
        start, goal = (part.astype(jnp.int32) for part in divmod(pair, nodes))

        def step(node, _):
            left = far[rows, node, goal]
            targets = neighbours[rows, node]  # [B, degree]
            right = far[rows[:, None], targets, goal[:, None]] == left[:, None] - 1
            edge = jnp.argmin(jnp.where(right, edges[rows, node], labels), axis=1)
            target = neighbours[rows, node, edge]
            triple = label[rows, node], edges[rows, node, edge], label[rows, target]
            return jnp.where(left > 0, target, node), (jnp.stack(triple, axis=1), left > 0)

        answer, due = jax.lax.scan(step, start, length=path)[1]
        nothing = jnp.full_like(start, -1)
        question = jnp.stack([label[rows, start], nothing, label[rows, goal]], axis=1)[:, None]
        given = in_any_order(key_g, neighbours, label, edges)
        answer = jnp.swapaxes(answer, 0, 1), due.T
        return lay_out("shortest_path", length, labels, given, question, *answer)

    return _task("shortest_path", nodes, degree, labels, sample)


def _task(name: str, nodes: int, degree: int, labels: int, sample) -> Task:
    if not degree < nodes <= labels:
        raise ValueError(f"{name} has degree < nodes <= labels, got {degree}, {nodes} and {labels}")
    loss = 3 * (log(labels) + (labels - 1) * log(labels / (labels - 1)))
    spec = Spec(Features(3 * labels + 2), Bernoullis(3 * labels, per_step=True))
    return Task(name, spec, sample, lambda length: {"loss": loss})


def draw_graph(key: jax.Array, batch: int, nodes: int, degree: int, labels: int):
    """Where edges lead [B, nodes, degree], labels of nodes [B, nodes] and of edges."""
    key_p, key_n, key_e = jax.random.split(jax.random.fold_in(key, 0), 3)
    points = jax.random.uniform(key_p, (batch, nodes, 2), jnp.float32)
    apart = jnp.sum((points[:, :, None] - points[:, None]) ** 2, axis=3)
    apart = jnp.where(jnp.eye(nodes, dtype=bool)[None], jnp.inf, apart)
    neighbours = jax.lax.top_k(-apart, degree)[1].astype(jnp.int32)
    any_label = jnp.zeros(labels, jnp.float32)
    label = draw_distinct(key_n, any_label, batch, nodes)
    edges = draw_distinct(key_e, any_label, batch * nodes, degree)
    return neighbours, label, edges.reshape(neighbours.shape)


def in_any_order(key, neighbours, label, edges) -> jax.Array:
    """The triples of all edges, int [B, edges, 3]."""
    batch = len(label)
    rows = jnp.arange(batch, dtype=jnp.int32)[:, None, None]
    source = jnp.broadcast_to(label[..., None], edges.shape)
    triples = jnp.stack([source, edges, label[rows, neighbours]], axis=3).reshape(batch, -1, 3)
    shuffled = jax.vmap(jax.random.permutation)
    return shuffled(jax.random.split(jax.random.fold_in(key, 1), batch), triples)


def lay_out(name, length, labels, given, question, answer, due) -> Batch:
    """Triples of labels, -1 for none, int [B, steps, 3]; due, bool [B, steps of the answer]."""
    batch, known = given.shape[:2]
    needed = known + question.shape[1] + answer.shape[1]
    if length < needed:
        raise ValueError(f"{name} needs length >= {needed}, got {length}")
    begins = length - answer.shape[1]

    def shown(triples, begin):
        one_hot = jax.nn.one_hot(triples, labels, dtype=jnp.float32)
        flat = one_hot.reshape(batch, -1, 3 * labels)
        return jnp.pad(flat, ((0, 0), (begin, length - begin - flat.shape[1]), (0, 0)))

    t = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[None], (batch, length))
    mask = jnp.pad(due, ((0, 0), (begins, 0)))
    x = beside(shown(given, 0) + shown(question, known), t == known, t >= begins)
    return Batch(x, where(mask, shown(answer, begins)), mask.astype(jnp.float32))
