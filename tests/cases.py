"""The claims: one line per plug-in, in one place; `test_cases.py` fails when a file has no line."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SnrDb:
    """Signal over rounding error in decibels, by format name: Gaussian weights, default `rtn`."""

    at_least: dict[str, float]


def snr_db(**at_least):
    return SnrDb(at_least)


@dataclass(frozen=True)
class Beats:
    """`quantity` is at most `ratio` times that of `other` in one format, never above it in any."""

    other: str
    quantity: str
    ratio: float
    format: str = "int3_g64"


FORMATS = {
    "bf16": snr_db(bf16=55.0),
    "binary_salient": snr_db(binary_salient10=4.8, binary_salient20=5.3),
    "bit_planes": snr_db(bit_planes2_g64=9.8, bit_planes2_g128=9.5, bit_planes3_g128=15.0),
    "column_scaled": snr_db(int2_g64_cols=9.4, int3_g64_cols=15.0, int4_g64_cols=21.0),
    "fp4": snr_db(fp4_g64=19.8),
    "fp6": snr_db(fp6_e2m3_g64=31.6, fp6_e3m2_g64=26.1),
    "fp8": snr_db(fp8_e4m3=31.4),
    "gauss": snr_db(gauss_n4p1_g128=9.3, gauss_n8p1_g64=14.7, gauss_n16p1_g64=20.3),
    "hadamard": snr_db(
        int2_g64_had=9.4, int4_g64_had=21.0, fp4_g64_had=19.8, mxfp4_had=18.9, nvint4_had=22.3
    ),
    "higgs": snr_db(higgs_n16p2_g128=9.6, higgs_n32p2_g128=12.4, higgs_n256p2_g128=20.6),
    "int_grouped": snr_db(
        int1_g64=4.1,
        int2_g64=9.4,
        int3_g64=15.0,
        int4_g64=21.0,
        int8_g64=45.3,
        int4_g64_sym=20.6,
        int4_g16=23.6,
    ),
    "lut": snr_db(lut2_channel=9.2, lut3_channel=14.5, lut4_channel=20.3, lut4_g64=21.2),
    "mxfp4": snr_db(mxfp4=18.9),
    "mixed": snr_db(int2x4_g64=10.2, slim2_g32=8.9, slim3_g32=14.9, slim4_g64=19.6),
    "mxfp6": snr_db(mxfp6_e2m3=30.9, mxfp6_e3m2=25.4),
    "mxfp8": snr_db(mxfp8_e4m3=31.4),
    "mxint8": snr_db(mxint8=42.3),
    "nf": snr_db(nf2_g64=8.4, nf3_g64=14.9, nf4_g64=21.0),
    "nvfp4": snr_db(nvfp4=20.9),
    "nvint4": snr_db(nvint4=22.3),
    "sign": snr_db(sign_g64=4.3, sign_channel=4.3),
    "sparse_outliers": snr_db(
        int2_channel_sparse10=10.0, int3_channel_sparse5=15.0, int4_g128_sparse5=21.0
    ),
    "ternary": snr_db(ternary_g64=7.3, ternary_g128=7.2),
    "trit_planes": snr_db(trit_planes_g64=16.2, trit_planes_g128=15.8),
    "weight_activation": snr_db(int4_g64_aint8=21.0, mxfp4_amxfp4=18.9),
    "zero": snr_db(zero=0.0),
}

# What papers say of a format beside another: at most this share of its squared error, on made-up
# weights of a kind (`tests/formats/test_papers.py`): (format, other, share, weights, paper)
FORMATS_BESIDE: tuple[tuple[str, str, float, str, str], ...] = (
    ("fp4_g128", "int4_g128_sym", 0.75, "outliers", "arXiv:2510.25602, abstract"),
    ("fp8_e4m3", "int8_channel_sym", 0.25, "rare outliers", "arXiv:2208.09225, abstract"),
    ("fp6_e3m2_g128", "int4_g32", 0.5, "gaussian", "arXiv:2312.08583, abstract"),
    ("mxfp6_e2m3", "int6_channel_sym", 0.4, "uneven blocks", "arXiv:2310.10537, section 1"),
    ("mxint8", "mxfp8_e4m3", 0.12, "gaussian", "arXiv:2510.25602, abstract"),
    ("nvint4_had", "nvfp4_had", 0.75, "outliers", "arXiv:2510.25602, abstract"),
)

# signal over rounding error of Gaussian inputs, 512 channels wide
ACTIVATIONS = {
    "int8": 42.5, "int8_asym": 43.0, "int8_g32": 45.4, "int8_g64": 44.5, "int8_g128": 43.7,
    "int4": 18.4, "int4_asym": 18.4, "int4_g32": 21.2, "int4_g64": 20.3, "int4_g128": 19.6,
    "fp8": 31.5, "mxfp8": 31.4, "mxfp6": 30.8, "mxfp4": 18.6, "nvfp4": 20.2,
}  # fmt: skip

QUANTIZERS = {
    "awq": Beats("rtn", "output_error", 0.7, "int3_g64_cols"),
    "gptaq": Beats("rtn", "output_error", 0.1),
    "gptq": Beats("rtn", "output_error", 0.1),
    "hqq": Beats("rtn", "mean_abs_error", 0.97),
    "kmeans": Beats("rtn", "weighted_error", 0.85, "lut3_channel"),
    "slim": Beats("rtn", "output_error", 0.1, "slim3_g32"),
    "rtn": Beats("rtn:clip_steps=0", "squared_error", 0.9),
}

# relative gap to the optimum of 200 random problems of up to 6 groups: (worst, mean)
SOLVERS: dict[str, tuple[float, float]] = {
    "cp_sat": (0.0, 0.0),
    "dynamic_programming": (0.0, 0.0),
    "exhaustive": (0.0, 0.0),
    "greedy": (3.6, 0.06),
    "lagrangian": (0.26, 0.004),
    "quadratic": (0.0, 0.0),
    "random": (45.0, 2.4),
    "uniform": (45.0, 2.8),
    "waterfill": (3.6, 0.09),
}

# the same over 100 problems of two or three limits that hold together
SOLVERS_OF_SEVERAL_LIMITS: dict[str, tuple[float, float]] = {
    "cp_sat": (0.0, 0.0),
    "exhaustive": (0.0, 0.0),
    "lagrangian": (0.3, 0.005),
    "quadratic": (0.0, 0.0),
    "random": (365.0, 10.5),
    "uniform": (71.0, 5.5),
}

# Spearman's correlation with `leave_one_in` measured on other sequences, int2/3/4/8 g64 on the tiny
# Llama: (over all layers and formats, over the layers of one format on average)
ESTIMATORS: dict[str, tuple[float, float]] = {
    "activation_aware": (0.80, 0.15),
    "activation_entropy": (0.84, -0.1),
    "blend": (0.975, 0.86),
    "by_part": (0.97, 0.83),
    "delta_loss": (0.93, 0.82),
    "evolved": (0.97, 0.85),
    "fisher": (0.97, 0.83),
    "fisher_directional": (0.97, 0.83),
    "fisher_lowrank": (0.975, 0.86),
    "fisher_output": (0.975, 0.86),
    "hessian_spread": (0.87, 0.33),
    "hessian_top": (0.88, 0.52),
    "hessian_trace": (0.93, 0.74),
    "kv_norms": (0.97, 0.83),
    "layer_influence": (0.89, 0.65),
    "layer_information": (0.93, 0.6),
    "leave_one_in": (0.985, 0.91),
    "linearity": (0.97, 0.82),
    "output_error": (0.80, 0.15),
    "perturbation_hessian": (0.93, 0.63),
    "salience": (0.73, 0.28),
    "taylor": (0.38, 0.22),
    "weight_error": (0.83, 0.15),
    "zscore_density": (0.82, -0.34),
}

# What papers say of block scores does not show on the tiny Llama, whose first block loses most and
# scores least: Spearman's correlation of the score with the block's measured loss, over the four
# blocks, and what the score adds to that of the relative error alone within one format, -0.14
BLOCK_SCORES: dict[str, tuple[float, float]] = {
    "activation_entropy": (-0.4, 0.07),
    "zscore_density": (-0.4, -0.17),
}

# as ESTIMATORS, over all layers and formats (int2/3/4 g32) of a ViT that reads digits, and of a
# sentence encoder whose truth is the cosine error: (images, sentences)
ESTIMATORS_OF_TASKS: dict[str, tuple[float, float]] = {
    "fisher": (0.85, 0.94),
    "fisher_directional": (0.85, 0.95),
    "fisher_output": (0.84, 0.75),
    "hessian_trace": (0.55, 0.9),
    "leave_one_in": (0.85, 0.97),
    "output_error": (0.5, 0.1),
    "weight_error": (0.6, 0.55),
}

# share of the exhaustive front's hypervolume, mean over 5 small studies whose layers interact: of
# points at 85 to 100 % of the budget, seen from 115 % of it, so that what is found at the budget
# itself counts most: (share, n_trials with baselines)
SEARCHES: dict[str, tuple[float, int]] = {
    "amq": (0.97, 24),
    "cmaes": (0.955, 24),
    "decoupled": (0.955, 24),
    "evolution": (0.85, 24),
    "gp": (0.95, 24),
    "nsga2": (0.95, 24),
    "nsga3": (0.95, 24),
    "posterior_ilp": (0.96, 24),
    "predictor_ga": (0.96, 24),
    "qmc": (0.955, 24),
    "random": (0.37, 24),
    "sweep": (0.955, 24),
    "tpe": (0.96, 24),
    "trust_region": (0.966, 24),
}

# quantities of a metric and their values for the unquantized model (None: the text decides)
METRICS: dict[str, dict[str, float | None]] = {
    "kl_divergence": {"kl": 0.0, "kl_stderr": 0.0},
    "cosine_error": {"cosine_error": 0.0, "cosine_error_stderr": 0.0},
    "label_error": {"label_error": None},
    "perplexity": {"perplexity": None},
    "rank_correlation": {"rank_correlation_error": 0.0},
    "top1_error": {"top1_error": 0.0},
}

# quantities of a cost, in order
COSTS: dict[str, tuple[str, ...]] = {
    "bops": ("bops",),
    "latency": ("latency_ns",),
    "memory": ("bytes", "code_bits"),
    "roofline": ("latency_ns",),
}


@dataclass(frozen=True)
class Loads:
    """A checkpoint that transformers loads, and the root mean square error of its logits.

    The error is relative to the model patched with the same formats. `size` is what the tensors
    weigh: `"counted"`, the bytes of the space, or `"16 bits"` a weight, or nothing promised.
    `formats` is a menu that is stored as it is, `families` all that can be written, if not any.
    """

    error: float
    size: str = ""
    formats: tuple[str, ...] = ("int2_g64", "int3_g64", "int4_g64", "nf4_g32", "bf16")
    families: tuple[str, ...] = ()
    file: str = "model.safetensors"


@dataclass(frozen=True)
class Recipe:
    """What another tool reads instead of weights."""

    file: str
    formats: tuple[str, ...] = ("int2_g64_sym", "int3_channel_sym", "int4_g64_sym", "bf16")


_LINEAR = (
    "llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "phi", "phi3", "opt", "bert",
    "electra", "gpt_neox", "mixtral", "qwen2_moe", "afmoe",
)  # fmt: skip
_SYMMETRIC = ("int2_g64_sym", "int3_channel_sym", "int5_g64_sym", "fp8_e4m3", "bf16")
_GGML = ("int2_g64", "int3_channel_sym", "int5_g64", "int8_g64_sym", "bf16")

EXPORTERS: dict[str, Loads | Recipe] = {
    "auto_round": Recipe("layer_config.json"),
    "compressed_tensors": Loads(0.006, formats=_SYMMETRIC, families=_LINEAR),
    "fake_quant": Loads(0.02, "16 bits"),
    "gguf": Loads(
        0.003, formats=_GGML, families=("llama", "mistral", "qwen2", "qwen3"), file="model.gguf"
    ),
    "gptqmodel": Recipe("quantize_config.json"),
    "llm_compressor": Recipe("recipe.json"),
    "modelopt": Recipe("quantize.yaml"),
    "packed": Loads(0.0, "counted"),
}

# mean KL from our own arithmetic on the tiny Llama, by exporter; nothing where it does not run here
RUNNERS: dict[str, dict[str, float]] = {
    "llama_cpp": {"gguf": 1e-6},
    "transformers": {"compressed_tensors": 1e-5, "fake_quant": 5e-5, "gguf": 1e-9, "packed": 1e-9},
    "vllm": {},
}
