"""Which operation runs in which format: torch autocast's own lists, by the name of the function."""

from typing import Any

# torch/docs amp "CUDA Ops that can autocast to float16".
MATRIX = frozenset(
    "linear linalg_vecdot linalg_matrix_power conv_tbc matmul __matmul__ __rmatmul__ mm bmm mv addmm "
    "addmv addr addbmm baddbmm einsum chain_matmul "
    "linalg_matmul linalg_multi_dot conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d "
    "scaled_dot_product_attention prelu".split()
)
# Where one of these takes an operand that is added, not multiplied; tensor cores add in FP32.
ADDED = {"linear": 2, "addmm": 0, "addmv": 0, "addr": 0, "addbmm": 0, "baddbmm": 0}
ADDED |= {f"conv{kind}{n}d": 2 for kind in ("", "_transpose") for n in (1, 2, 3)}
# torch/docs amp "CUDA Ops that autocast to float32", and the losses.
WIDE = frozenset(
    "softmax log_softmax softmin exp expm1 log log10 log1p log2 pow __pow__ __rpow__ float_power reciprocal rsqrt "
    "__rdiv__ __rtruediv__ acos asin cosh sinh tan erfinv sum prod cumsum cumprod norm dist cdist renorm logsumexp "
    "layer_norm group_norm rms_norm local_response_norm linalg_norm linalg_vector_norm linalg_matrix_norm normalize "
    "cosine_similarity pdist gumbel_softmax softplus interpolate cross_entropy nll_loss mse_loss l1_loss "
    "smooth_l1_loss huber_loss kl_div binary_cross_entropy_with_logits poisson_nll_loss gaussian_nll_loss "
    "cosine_embedding_loss hinge_embedding_loss margin_ranking_loss soft_margin_loss triplet_margin_loss".split()
)
FOLLOWS_FIRST = frozenset({"batch_norm", "instance_norm"})  # statistics in FP32, result in the input's format
OPAQUE = frozenset(
    "multi_head_attention_forward lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell".split()
)
# They fill their result with whatever was in memory, so nothing is to be rounded or looked at.
UNINITIALISED = frozenset({"empty_like", "new_empty", "new_empty_strided", "resize_", "resize_as_"})


def is_in_place(name: str, kwargs: dict[str, Any]) -> bool:
    """True for `add_`, `__iadd__`, `relu(inplace=True)` and `out=`: afterwards the inputs are gone."""
    if name.endswith("__"):
        return name.startswith("__i") and name not in ("__invert__", "__index__", "__int__")
    return name.endswith("_") or bool(kwargs.get("inplace")) or kwargs.get("out") is not None
