"""Sliders over curves that are computed already: a page that moves without a kernel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np


def knobs(
    curves: Any, sliders: Mapping[str, Any], *, low: float, high: float, caption: str = ""
) -> str:
    """HTML of a curve with a slider for each axis of positions.

    curves: [*positions, T]. sliders: by name, the positions, numbers or words. low, high: of the
    picture; what is beyond is drawn at its edge. In a notebook: `display(HTML(knobs(...)))`.
    """
    curves = np.asarray(curves, np.float64)
    positions = tuple(len(at) for at in sliders.values())
    if curves.ndim < 2 or curves.shape[:-1] != positions or curves.shape[-1] < 2:
        raise ValueError(
            f"curves must be {[*positions, 'T']} for these sliders, T at least 2, "
            f"got {list(curves.shape)}"
        )
    named = [[escape(name), [_shown(v) for v in at]] for name, at in sliders.items()]
    data = np.nan_to_num(np.round(curves, 4), nan=high, posinf=high, neginf=low)
    return PAGE % {
        "data": json.dumps(data.tolist()),
        "sliders": json.dumps(named).replace("<", "\\u003c"),
        "low": low, "high": high, "caption": escape(caption),
    }  # fmt: skip


def _shown(value: Any) -> str | float:
    return value if isinstance(value, str) else round(float(value), 3)


PAGE = """
<div class="knobs" style="max-width: 640px; font-family: sans-serif; font-size: 14px">
<svg viewBox="0 0 640 220" style="width: 100%%; background: #fff; border: 1px solid #ddd">
<line x1="0" x2="640" stroke="#bbb"/><polyline fill="none" stroke="#22577a" stroke-width="2"/></svg>
<div class="at"></div><p style="margin: 4px 0; color: #777">%(caption)s</p></div>
<script>(() => {
  const me = document.currentScript.previousElementSibling;
  const data = %(data)s, sliders = %(sliders)s, low = %(low)s, high = %(high)s;
  const at = sliders.map(([, values]) => Math.floor(values.length / 2));
  const y = (v) => 10 + 200 * (high - Math.min(high, Math.max(low, v))) / (high - low);
  const zero = me.querySelector("line"), line = me.querySelector("polyline");
  zero.setAttribute("y1", y(0)); zero.setAttribute("y2", y(0));
  const draw = () => {
    const curve = at.reduce((part, n) => part[n], data), step = 620 / (curve.length - 1);
    line.setAttribute("points", curve.map((v, t) => `${10 + t * step},${y(v)}`).join(" "));
  };
  sliders.forEach(([name, values], k) => {
    const label = document.createElement("label"), input = document.createElement("input");
    const text = document.createElement("span");
    label.style = "display: flex; gap: 8px; align-items: center; margin: 4px 0";
    Object.assign(input, {type: "range", min: 0, max: values.length - 1, value: at[k]});
    input.style = "flex: 1"; text.style = "width: 240px";
    const move = () => { at[k] = +input.value; text.textContent = `${name} = ${values[at[k]]}`; draw(); };
    input.oninput = move; label.append(text, input); me.querySelector(".at").append(label); move();
  });
})();</script>
"""  # noqa: E501
