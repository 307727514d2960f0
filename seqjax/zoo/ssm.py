"""State-space models and long convolutions."""

from seqjax.layers.ssm.dlr import DLR
from seqjax.layers.ssm.dss import DSS
from seqjax.layers.ssm.griffin import Griffin
from seqjax.layers.ssm.gss import GSS
from seqjax.layers.ssm.h3 import H3
from seqjax.layers.ssm.hawk import Hawk
from seqjax.layers.ssm.hippo import HiPPO
from seqjax.layers.ssm.hippo_rnn import HippoRNN
from seqjax.layers.ssm.hyena import Hyena
from seqjax.layers.ssm.laughing_hyena import LaughingHyena
from seqjax.layers.ssm.linoss import LinOSS
from seqjax.layers.ssm.liquid_s4 import LiquidS4
from seqjax.layers.ssm.lmu import LMU
from seqjax.layers.ssm.lru import LRU
from seqjax.layers.ssm.lssl import LSSL
from seqjax.layers.ssm.mamba import Mamba
from seqjax.layers.ssm.mamba2 import Mamba2
from seqjax.layers.ssm.mamba3 import Mamba3
from seqjax.layers.ssm.mega import MEGA
from seqjax.layers.ssm.pd_ssm import PDSSM
from seqjax.layers.ssm.rg_lru import RGLRU
from seqjax.layers.ssm.s4 import S4
from seqjax.layers.ssm.s4d import S4D
from seqjax.layers.ssm.s5 import S5
from seqjax.layers.ssm.sashimi import SaShiMi
from seqjax.layers.ssm.sgconv import SGConv
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "hippo": Entry(
        HiPPO,
        "HiPPO: online function approximation; LegS, LegT, LagT, Fourier; time-varying and LTI",
        "2008.07669",
        state="state * features",
        smoke=dict(state=3),
        variants={
            "exact": dict(state=3, discretisation="zoh"),
            "window": dict(measure="legt", state=4, discretisation="forward", dt=0.2),
            "fixed": dict(time_varying=False, state=2, discretisation="backward", dt=0.3),
        },
        exempt={"learned h0 has a gradient": "the first step of LegS holds f alone"},
    ),
    "lru": Entry(
        LRU,
        "Linear recurrent unit",
        "2303.06349",
        state="2 * (state or features)",
        smoke=dict(state=3),
        variants={
            "direct": dict(state=3, exp_param=False),
            "unnormalised": dict(state=3, gamma_norm=False),
        },
    ),
    "s4d": Entry(
        S4D,
        "S4D: diagonal state spaces; Lin, Inv, LegS, Real, Quad, random inits",
        "2206.11893",
        state="features * state",
        smoke=dict(state=4),
        variants={
            "bilinear": dict(state=4, init="inv", discretisation="bilinear"),
            "forward": dict(state=2, discretisation="forward", dt_max=0.01, mix=False),
            "dirac": dict(state=2, discretisation="dirac", mix=False),
            "unmixed": dict(state=4, init="legs", mix=False),
            "real": dict(state=4, init="real"),
            "random": dict(state=4, init="random"),
        },
    ),
    "lssl": Entry(
        LSSL,
        "Linear state-space layer",
        "2110.13985",
        state="features * state",
        smoke=dict(state=3),
        variants={"fixed": dict(state=2, measure="legt", channels=2, fixed=True)},
    ),
    "s4": Entry(
        S4,
        "S4: diagonal plus low rank from HiPPO, bilinear, Cauchy kernel",
        "2111.00396",
        state="features * state",
        smoke=dict(state=4),
        variants={
            "truncated": dict(state=4, measure="legt", length=8, mix=False),
            "untied": dict(state=4, hurwitz=False),
        },
    ),
    "sashimi": Entry(
        SaShiMi,
        "SaShiMi: stable S4 in a U-net of down- and up-pooled blocks",
        "2202.09729",
        state="depth * state * all_features + buffered",
        smoke=dict(depth=1, pool=(2,), state=2, ff=1),
        variants={"deep": dict(depth=1, pool=(2, 3), expand=1, state=2, ff=0)},
    ),
    "liquid_s4": Entry(
        LiquidS4,
        "Liquid-S4: products of inputs beside them",
        "2209.12951",
        state="features * (state + degree - 1)",
        smoke=dict(state=4),
        variants={"kb": dict(state=4, kernel="kb", degree=3, mix=False)},
    ),
    "s5": Entry(
        S5,
        "S5: one diagonal system for all channels; irregular steps",
        "2208.04933",
        state="2 * N",
        smoke=dict(state=4),
        variants={
            "blocks": dict(state=4, blocks=2, discretisation="bilinear", clip=True, mix=False),
            "all_conjugates": dict(state=2, conj_sym=False),
            "async": dict(state=2, discretisation="async", mix=False),
            "rescaled": dict(state=2, step_rescale=0.5, conj_sym=False),
        },
    ),
    "dss": Entry(
        DSS,
        "DSS: diagonal state spaces with one spectrum for all channels",
        "2203.14343",
        state="2 * features * state",
        smoke=dict(state=3),
        variants={
            "softmax": dict(state=2, version="softmax", length=9),
            "clip": dict(state=2, version="clip", separate_dt=False),
            "no_scale": dict(state=2, version="exp-no-scale", mix=False),
            "clip_no_scale": dict(state=2, version="clip-no-scale"),
            "re_im": dict(state=2, version="exp-re-im", mix=False),
        },
    ),
    "dlr": Entry(
        DLR,
        "Diagonal linear RNN",
        "2212.00768",
        state="2 * features * N",
        smoke=dict(state=3),
        variants={
            "prod": dict(state=2, to_real="prod"),
            "sum": dict(state=2, to_real="sum", undamped=True, real_W=True, mix=False),
            "real": dict(state=3, real_Lambda=True, real_W=True),
            "halves": dict(state=2, to_real="real-prod", mix=False),
        },
    ),
    "mamba": Entry(
        Mamba,
        "Mamba (S6): selective scan, convolution, gate",
        "2312.00752",
        state="expand * features * (state + conv - 1)",
        smoke=dict(state=3, conv=3, dt_rank=2),
        variants={"negative": dict(state=3, conv=2, expand=1, eigenvalues="[-1,1]")},
    ),
    "mamba2": Entry(
        Mamba2,
        "Mamba-2: state-space duality",
        "2405.21060",
        state="heads * P * state + (conv - 1) * (heads * P + 2 * groups * state)",
        smoke=dict(state=3, heads=4, groups=2, conv=3),
        variants={
            "negative": dict(state=3, heads=4, groups=2, conv=2, expand=1, eigenvalues="[-1,1]"),
            "beside": dict(
                state=3, heads=2, ssm_size=6, conv=2, D_per_channel=True, dt_limit=(0.05, 0.5)
            ),
        },
    ),
    "mamba3": Entry(
        Mamba3,
        "Mamba-3: trapezoidal discretisation, complex state by rotations, MIMO",
        "2603.15569",
        state="heads * (state * P + angles + rank * state + P)",
        smoke=dict(state=4, heads=2),
        variants={"mimo": dict(state=5, heads=2, groups=2, rank=2, expand=1, floor=0.8, norm=True)},
    ),
    "rg_lru": Entry(
        RGLRU,
        "RG-LRU",
        "2402.19427",
        state="features",
        smoke=dict(blocks=2),
        variants={
            "unscaled_start": dict(unscaled_start=True),
            "negative": dict(eigenvalues="[-1,1]"),
        },
    ),
    "griffin": Entry(
        Griffin,
        "Griffin: RG-LRU blocks mixed with local multi-query attention",
        "2402.19427",
        state="pattern.count('recurrent') * conv * (width or features)"
        " + pattern.count('attention') * 2 * (window - 1) * (features // heads)",
        smoke=dict(pattern=("recurrent", "attention"), heads=2, conv=2, window=3, expansion=1.0),
        variants={
            "wide": dict(heads=2, width=6, window=8, expansion=0, unscaled_start=True),
            "negative": dict(heads=1, width=3, window=3, expansion=0, eigenvalues="[-1,1]"),
        },
    ),
    "hawk": Entry(
        Hawk,
        "Hawk: the recurrent blocks of Griffin alone",
        "2402.19427",
        state="blocks * conv * (width or features)",
        smoke=dict(heads=2, expansion=1.0),
        variants={"two": dict(blocks=2, heads=1, expansion=0.0, eigenvalues="[-1,1]")},
    ),
    "lmu": Entry(
        LMU,
        "Legendre memory unit",
        "Voelker 2019",
        state="memories * order + (hidden if coupled else 0)",
        smoke=dict(order=3, theta=5.0),
        variants={
            "parallel": dict(order=3, theta=5.0, memories=2, coupled=False),
            "forward": dict(hidden=3, order=2, theta=9.0, memories=2, discretisation="forward"),
            "fourier": dict(order=3, theta=5.0, measure="fout", coupled=False),
        },
    ),
    "mega": Entry(
        MEGA,
        "MEGA: multi-dimensional damped EMA and gated attention; MEGA-chunk",
        "2209.10655",
        state="(length - 1) * (size + inner) + features * (truncation - 1 if truncation else ndim)",
        smoke=dict(ndim=2, size=2, length=4),
        variants={
            "chunk": dict(
                ndim=2,
                size=4,
                length=3,
                chunked=True,
                weights="laplace",
                bias="rotary",
                prenorm=True,
                norm="scale",
            ),
            "truncated": dict(ndim=3, size=2, inner=3, length=9, truncation=3, expansion=0.0),
        },
    ),
    "gss": Entry(
        GSS,
        "Gated state space",
        "2206.13947",
        state="2 * reduced * state",
        smoke=dict(state=3, reduced=2, hidden=3),
        variants={"plain": dict(state=2, reduced=3, imag_exp=False)},
    ),
    "h3": Entry(
        H3,
        "H3: shift SSM x diagonal SSM with multiplicative gates",
        "2212.14052",
        state="shift * features + head_size * features * state",
        smoke=dict(state=4, shift=3),
        variants={"heads": dict(head_size=2, state=2, shift=2, init="inv", discretisation="zoh")},
    ),
    "hyena": Entry(
        Hyena,
        "Hyena operator of order N, implicit filters",
        "2302.10866",
        state="2 * (order + 1) * features + (order - 1) * (length - 1) * features",
        smoke=dict(length=5, width=3),
        variants={
            "third": dict(order=3, length=9, width=2, bands=2, depth=1, frequency=3.0, shift=0.1),
            "unwindowed": dict(length=5, width=2, depth=0, window=False),
        },
    ),
    "laughing_hyena": Entry(
        LaughingHyena,
        "LaughingHyena: modal interpolation of long filters, streaming with a small state",
        "2310.18780",
        state="2 * (order + 1) * features + 2 * (order - 1) * features * modes",
        smoke=dict(modes=2),
        variants={"third": dict(order=3, modes=1)},
    ),
    "sgconv": Entry(
        SGConv,
        "SGConv: structured global convolution",
        "2210.09298",
        state="(length - 1) * features",
        smoke=dict(length=5, kernel_size=2),
        variants={
            "sum": dict(length=8, kernel_size=3, mode="sum", filters=2, mix=False, decay_min=1.0),
            "learned": dict(
                length=8, kernel_size=2, learned_decay=True, upsample="nearest", first_scale=1
            ),
        },
    ),
    "hippo_rnn": Entry(
        HippoRNN,
        "HiPPO memory inside a gated RNN",
        "2008.07669",
        state="hidden + memories * order",
        smoke=dict(hidden=3, order=3),
        variants={
            "lmu": dict(
                hidden=3,
                memories=2,
                order=3,
                measure="lmu",
                dt=0.2,
                gate=False,
                recurrent=True,
                memory_feedback=True,
                bias=False,
            ),
            "bounded": dict(hidden=2, order=3, max_length=4, recurrent=True),
        },
    ),
    "linoss": Entry(
        LinOSS,
        "LinOSS: oscillatory state space, implicit and implicit-explicit",
        "2410.03943",
        state="4 * state",
        smoke=dict(state=3),
        variants={"imex": dict(state=3, discretisation="IMEX", mix=False)},
    ),
    "pd_ssm": Entry(
        PDSSM,
        "PD-SSM: permutation times diagonal transitions",
        "2509.22284",
        state="2 * state",
        smoke=dict(state=3, dictionary=2),
    ),
}
