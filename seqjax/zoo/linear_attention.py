"""Linear attention and its decays."""

from seqjax.layers.linear_attention.aaren import Aaren
from seqjax.layers.linear_attention.abc import ABC
from seqjax.layers.linear_attention.aft import AFT
from seqjax.layers.linear_attention.based import Based
from seqjax.layers.linear_attention.cosformer import CosFormer
from seqjax.layers.linear_attention.ecoformer import EcoFormer
from seqjax.layers.linear_attention.ffm import FFM
from seqjax.layers.linear_attention.flash_gau import FlashGAU
from seqjax.layers.linear_attention.fox import FoX
from seqjax.layers.linear_attention.gated_rnn_attention import GatedRNN
from seqjax.layers.linear_attention.gateloop import GateLoop
from seqjax.layers.linear_attention.gau import GAU
from seqjax.layers.linear_attention.gla import GLA
from seqjax.layers.linear_attention.gsa import GSA
from seqjax.layers.linear_attention.hgrn2 import HGRN2
from seqjax.layers.linear_attention.lightnet import LightNet
from seqjax.layers.linear_attention.lightning_attention import LightningAttention
from seqjax.layers.linear_attention.linear_transformer import LinearTransformer
from seqjax.layers.linear_attention.log_linear_attention import LogLinearAttention
from seqjax.layers.linear_attention.mao_decay import MaoDecay
from seqjax.layers.linear_attention.mlstm import MLSTM
from seqjax.layers.linear_attention.performer import Performer
from seqjax.layers.linear_attention.rebased import ReBased
from seqjax.layers.linear_attention.relit import ReLiT
from seqjax.layers.linear_attention.retnet import RetNet
from seqjax.layers.linear_attention.rfa import RFA
from seqjax.layers.linear_attention.rodimus import Rodimus
from seqjax.layers.linear_attention.tova_msrnn import MSRNN
from seqjax.layers.linear_attention.transnormer import TransNormer
from seqjax.layers.linear_attention.transnormer_llm import TransNormerLLM
from seqjax.layers.rwkv.rwkv4 import RWKV4
from seqjax.layers.rwkv.rwkv5 import RWKV5
from seqjax.layers.rwkv.rwkv6 import RWKV6
from seqjax.zoo.entry import Entry

ROWS: dict[str, Entry] = {
    "linear_transformer": Entry(
        LinearTransformer,
        "Linear Transformer: elu + 1, or any feature map",
        "2006.16236",
        state="heads * size * (V + 1)",
        smoke=dict(heads=2),
        variants={
            "dpfp": dict(heads=1, key_size=3, value_size=2, feature_map=("dpfp", {"nu": 2})),
            "taylor": dict(heads=2, feature_map="taylor", bias=False, denominator="max"),
        },
    ),
    "performer": Entry(
        Performer,
        "Performer: positive and trigonometric FAVOR+ features",
        "2009.14794",
        state="heads * size * (V + 1)",
        smoke=dict(heads=2, count=3),
        variants={
            "hyperbolic": dict(heads=1, feature_map="favor+-"),
            "relu": dict(heads=2, count=3, feature_map="random_relu"),
        },
    ),
    "rfa": Entry(
        RFA,
        "Random feature attention, and RFA-gate",
        "2103.02143",
        state="heads * size * (V + 1)",
        smoke=dict(heads=2, count=3),
        variants={"gate": dict(heads=2, gate=True, tau=0.7)},
    ),
    "cosformer": Entry(
        CosFormer,
        "cosFormer: relu features, cosine re-weighting",
        "2202.08791",
        state="heads * size * (V + 1)",
        smoke=dict(heads=2, length=20),
        variants={"elu": dict(heads=1, length=20, feature_map="elu+1")},
    ),
    "ecoformer": Entry(
        EcoFormer,
        "EcoFormer: kernelised hashing to binary codes",
        "2209.09004",
        state="heads * size * (V + 1)",
        smoke=dict(heads=2, count=3, anchors=4),
    ),
    "transnormer": Entry(
        TransNormer,
        "TransNormer: NormAttention + diagonal attention",
        "2210.10340",
        state="2 * (window - 1) * features + features**2 // heads",
        smoke=dict(heads=2, window=3, expansion=1.0),
    ),
    "transnormer_llm": Entry(
        TransNormerLLM,
        "TransNormerLLM: LRPE with exponential decay, gating, SRMSNorm",
        "2307.14995",
        state="(2 if lrpe else 1) * heads * K * K",
        smoke=dict(heads=2, expansion=1.0),
        variants={"released": dict(heads=1, depth=0.5, lrpe=False, slopes="alibi")},
    ),
    "lightning_attention": Entry(
        LightningAttention,
        "Lightning attention: fixed per-head decay, chunked",
        "2401.04658",
        state="heads * K * K",
        smoke=dict(heads=2),
    ),
    "aft": Entry(
        AFT,
        "Attention-free Transformer: full, local, simple, conv",
        "2105.14103",
        state="(kind != 'full') * 3 * hidden + (kind != 'simple') * 2 * (window - 1) * hidden",
        smoke=dict(window=3, length=20, rank=2),
        variants={
            "full": dict(kind="full", hidden=3, length=20, rank=None),
            "simple": dict(kind="simple"),
            "conv": dict(kind="conv", window=3, heads=2),
        },
    ),
    "retnet": Entry(
        RetNet,
        "RetNet: multi-scale retention, xPos, GroupNorm",
        "2307.08621",
        state="heads * K * V",
        smoke=dict(heads=2),
        variants={
            "xpos": dict(heads=2, value_size=3, xpos=True, norm="rms", expansion=1.0),
            "grouped": dict(heads=2, kv_heads=1, gate="none", expansion=1.0),
        },
    ),
    "relit": Entry(
        ReLiT,
        "ReLiT and AReLiT",
        "2310.15719",
        state="heads * (r * (K + V) + K if r else K * (V + 1))",
        smoke=dict(heads=2, eta=2),
        variants={
            "approximate": dict(heads=2, eta=2, r=3),
            "joint": dict(heads=1, gate="joint", feature_map="dpfp"),
            "scalar": dict(heads=2, size=3, gate="scalar", feature_map="elu+1"),
            "damped": dict(heads=2, eta=2, f="elu+1", gate="damped"),
            "delta": dict(heads=2, widening=2, gate="delta", feature_map="elu+1"),
            "projected_gate": dict(
                heads=1, widening=2, gate="joint", feature_map="relu", gate_map="projected"
            ),
        },
    ),
    "mao_decay": Entry(
        MaoDecay,
        "Fine-tuning-friendly linear attention with low-rank outer-product decay",
        "2210.04243",
        state="heads * K * V",
        smoke=dict(heads=2, key_size=3),
        variants={"negative": dict(heads=2, key_size=3, eigenvalues="[-1,1]")},
    ),
    "hgrn2": Entry(
        HGRN2,
        "HGRN2: gated linear RNN with outer-product state expansion",
        "2404.07904",
        state="heads * K * K + ((conv or 1) - 1) * 3 * features",
        smoke=dict(expansion=2),
        variants={
            "bounded": dict(lower_bound=0.5),
            "negative": dict(expansion=2, lower_bound=0.25, eigenvalues="[-1,1]"),
            "released": dict(expansion=2, lower_bound=0.5, released=True, norm="rms", conv=3),
        },
    ),
    "based": Entry(
        Based,
        "Based: Taylor feature map + sliding window",
        "2402.18668",
        state="(1 + key_size + key_size**2) * (features + heads) + 2 * (window - 1) * features"
        " + (conv - 1) * 2 * features",
        smoke=dict(
            pattern=("conv", "linear", "window"),
            heads=2,
            key_size=2,
            window=3,
            conv=2,
            expansion=1.0,
        ),
    ),
    "gla": Entry(
        GLA,
        "Gated linear attention",
        "2312.06635",
        state="kv_heads * K * V + ((conv or 1) - 1) * (heads * K + kv_heads * (K + V))",
        smoke=dict(heads=2, key_size=3, rank=3),
        variants={
            "negative": dict(
                heads=4,
                kv_heads=2,
                key_size=3,
                value_size=3,
                rank=3,
                tau=0.5,
                eigenvalues="[-1,1]",
            ),
            "values": dict(heads=2, key_size=3, rank=3, tau=0.5, value_gate=True),
            "released": dict(
                heads=2,
                kv_heads=1,
                key_size=3,
                rank=3,
                tau=0.5,
                norm="rms",
                gate_bias=False,
                qk_map="relu2",
                conv=3,
                lower_bound=-0.5,
            ),
        },
    ),
    "mlstm": Entry(
        MLSTM,
        "mLSTM: exponential input gate, matrix memory, max-stabiliser",
        "2405.04517",
        state="heads * (K * V + K + 1)",
        smoke=dict(heads=2),
        variants={
            "exp": dict(heads=1, key_size=3, forget="exp", bias=False, gate_cap=15.0),
            "sigmoid": dict(heads=2, input="sigmoid"),
        },
    ),
    "rwkv4": Entry(
        RWKV4,
        "RWKV-4: token shift, WKV with bonus, channel mixing",
        "2305.13048",
        state="features + 3 * hidden + (features if block else 0)",
        variants={"block": dict(hidden=3, block=True, inner=5, depth=0.5)},
    ),
    "rwkv5": Entry(
        RWKV5,
        "RWKV-5 Eagle: matrix state, constant decay per key, bonus",
        "2404.05892",
        state="heads * K * V + features + (features if block else 0)",
        smoke=dict(heads=2),
        variants={"block": dict(heads=1, block=True, inner=5, depth=0.5, key_size=3, value_size=2)},
    ),
    "rwkv6": Entry(
        RWKV6,
        "RWKV-6 Finch: data-dependent token shift and decay",
        "2404.05892",
        state="heads * K * V + features + (features if block else 0)",
        smoke=dict(heads=2, ranks=(2, 3)),
        variants={"block": dict(heads=1, ranks=(3, 2), block=True, inner=5, depth=0.5)},
    ),
    "aaren": Entry(
        Aaren,
        "Attention as an RNN: all prefixes of softmax attention by a stabilised scan",
        "2405.13956",
        state="heads * (K + 2)",
        smoke=dict(heads=2),
    ),
    "gau": Entry(
        GAU,
        "Gated attention unit",
        "2202.10447",
        state="(length - 1) * (size + inner)",
        smoke=dict(size=2, length=4, bias="rotary"),
        variants={
            "laplace": dict(size=2, length=3, weights="laplace"),
            "t5": dict(size=3, expansion=0.5, length=9, bias="t5", weights="softmax"),
        },
        exempt={"learned h0 has a gradient": "the state is a cache, and starts empty"},
    ),
    "flash_gau": Entry(
        FlashGAU,
        "FLASH: mixed-chunk attention, quadratic inside a chunk and linear over the past ones",
        "2202.10447",
        state="size * inner + (group - 1) * (2 * size + inner) + (features // 2 if shift else 0)",
        smoke=dict(size=4, group=3),
        variants={"shift": dict(size=4, expansion=0.5, group=2, shift=True)},
    ),
    "gateloop": Entry(
        GateLoop,
        "GateLoop: complex data-controlled diagonal transition",
        "2311.01927",
        state="2 * heads * K * K",
        smoke=dict(heads=2),
        variants={
            "modulus": dict(heads=1, inner=3, transition="modulus", norm=True),
            "real": dict(heads=2, transition="modulus_real", gate=False),
        },
    ),
    "gsa": Entry(
        GSA,
        "Gated slot attention",
        "2409.07146",
        state="kv_heads * (K + V) * slots + ((conv or 1) - 1) * (heads * K + kv_heads * (K + V))",
        smoke=dict(heads=2, slots=3),
        variants={
            "released": dict(heads=2, kv_heads=1, slots=3, norm="plain", qk_map="relu", conv=3),
            "grouped": dict(heads=4, kv_heads=2, key_size=3, value_size=2, slots=3),
        },
    ),
    "fox": Entry(
        FoX,
        "Forgetting Transformer: softmax attention with a forget gate",
        "2503.02130",
        state="(window - 1) * (2 * kv_heads * K + heads + (kv_heads * (K + 1) if path else 0))"
        " + (2 * kv_heads * K if shift else 0) + (2 * kv_heads * K if path else 0)",
        smoke=dict(heads=2, window=4),
        variants={
            "pro": dict(heads=2, window=3, pro=True),
            "path": dict(heads=2, window=4, path=True),
            "normed": dict(heads=2, window=4, pro=("qk_norm", "output_gate")),
            "grouped": dict(heads=4, kv_heads=2, window=3, pro=True, path=True),
        },
        exempt={"learned h0 has a gradient": "the state is a cache, and starts empty"},
    ),
    "tova_msrnn": Entry(
        MSRNN,
        "Multi-state RNN: attention with a bounded cache (TOVA)",
        "2401.06104",
        state="size * heads * (2 * K + (policy == 'h2o'))",
        smoke=dict(heads=2, size=3),
        variants={
            "window": dict(heads=1, size=3, policy="window", keep_first=1),
            "h2o": dict(heads=2, size=4, policy="h2o"),
        },
        exempt={"learned h0 has a gradient": "the state is a cache, and starts empty"},
    ),
    "gated_rnn_attention": Entry(
        GatedRNN,
        "Gated linear RNN that can be linear self-attention exactly",
        "2309.01775",
        state="hidden",
        variants={"narrow": dict(hidden=3, width=5), "exact": dict(hidden=20, width=16)},
    ),
    "log_linear_attention": Entry(
        LogLinearAttention,
        "Log-linear attention: Fenwick-tree states",
        "2506.04761",
        state="levels * heads * K * V",
        smoke=dict(heads=2, levels=4),
        variants={"full": dict(heads=2, key_heads=1, key_size=3, levels=2)},
    ),
    "abc": Entry(
        ABC,
        "ABC: attention with bounded-memory control",
        "2110.02488",
        state="heads * (K + V + 1) * slots + ((conv or 1) - 1) * heads * (2 * K + V)",
        smoke=dict(heads=2, key_size=2, slots=3),
        variants={
            "paper": dict(
                heads=1, key_size=3, rotary_fraction=0.0, clamp=None, norm=None, output_gate=False
            ),
            "convolved": dict(
                heads=2, key_size=3, value_size=2, slots=3, norm="plain", input_gate=True, conv=3
            ),
        },
    ),
    "rebased": Entry(
        ReBased,
        "ReBased: learned quadratic feature map",
        "2402.10644",
        state="heads * size * (V + 1)",
        smoke=dict(heads=2, key_size=3),
        variants={
            "shared": dict(heads=1, key_size=3, value_size=2, shared=True, normalise=False),
            "plain": dict(heads=2, key_size=2, gamma=False, beta=False),
        },
    ),
    "lightnet": Entry(
        LightNet,
        "LightNet: additive linear recurrence for several dimensions",
        "2405.21022",
        state="heads * K * (V + 1) + ((conv or 1) - 1) * (2 * heads * K + features)",
        smoke=dict(heads=2, key_size=3, rank=2),
        variants={"convolved": dict(heads=1, key_size=2, rank=3, norm="plain", conv=3)},
    ),
    "rodimus": Entry(
        Rodimus,
        "Rodimus: data-dependent tempered selection",
        "2410.06577",
        state="(K + (conv or 1) - 1) * inner",
        smoke=dict(key_size=3, inner=6, rank=2, conv=3),
        variants={"bare": dict(key_size=2, rank=3, conv=0)},
    ),
    "ffm": Entry(
        FFM,
        "Fast and forgetful memory",
        "2310.04128",
        state="2 * traces * contexts",
        smoke=dict(traces=3, contexts=2),
        variants={"spaced": dict(out_features=3, traces=2, contexts=3, log_spaced=True)},
    ),
}
