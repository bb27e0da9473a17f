"""Which operation runs in which format: torch autocast's own lists, by the name of the function."""

from dataclasses import dataclass
from typing import Any

LOSSES = (
    "cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss huber_loss kl_div binary_cross_entropy "
    "binary_cross_entropy_with_logits poisson_nll_loss cosine_embedding_loss hinge_embedding_loss "
    "margin_ranking_loss soft_margin_loss triplet_margin_loss multi_margin_loss multilabel_margin_loss"
)
PRODUCTS = (
    "linear linalg_vecdot linalg_matrix_power conv_tbc matmul __matmul__ __rmatmul__ mm bmm addmm addbmm baddbmm "
    "einsum chain_matmul linalg_matmul linalg_multi_dot conv1d conv2d conv3d conv_transpose1d "
    "conv_transpose2d conv_transpose3d scaled_dot_product_attention prelu lstm"
)
# torch/docs amp "CUDA Ops that can autocast to float16".
MATRIX = frozenset(
    f"{PRODUCTS} mv addmv addr gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell".split()
)
# Where one of these takes an operand that is added, not multiplied; tensor cores add in FP32.
ADDED = {"linear": 2, "addmm": 0, "addmv": 0, "addr": 0, "addbmm": 0, "baddbmm": 0}
ADDED |= {f"conv{kind}{n}d": 2 for kind in ("", "_transpose") for n in (1, 2, 3)}
# torch/docs amp "CUDA Ops that autocast to float32", what consists of them, and the losses.
WIDE = frozenset(
    "softmax log_softmax softmin exp expm1 log log10 log1p log2 pow __pow__ __rpow__ square float_power reciprocal "
    "rsqrt __rdiv__ __rtruediv__ acos arccos asin arcsin cosh sinh tan erfinv sum sum_to_size prod cumsum cumprod "
    "trapezoid trapz cumulative_trapezoid norm frobenius_norm nuclear_norm norm_except_dim dist cdist "
    "pairwise_distance renorm logsumexp layer_norm group_norm rms_norm local_response_norm linalg_norm "
    "linalg_vector_norm linalg_matrix_norm normalize cosine_similarity pdist gumbel_softmax softplus interpolate "
    f"gaussian_nll_loss multilabel_soft_margin_loss triplet_margin_with_distance_loss {LOSSES}".split()
)
# torch/docs amp "CPU Ops that autocast to bfloat16", and what consists of them; then "to float32".
CPU_MATRIX = frozenset(f"{PRODUCTS} inner tensordot".split())
CPU_WIDE = frozenset(
    "prod quantile nanquantile cdist trace stft polar view_as_complex local_response_norm float_power grid_sample "
    "avg_pool3d adaptive_avg_pool3d adaptive_max_pool3d adaptive_max_pool3d_with_indices max_pool3d max_unpool2d "
    "max_unpool3d fractional_max_pool2d fractional_max_pool3d fft_hfft fft_irfft fft_irfft2 fft_irfftn lu cholesky "
    "cholesky_inverse cholesky_solve inverse pinverse lu_solve orgqr ormqr geqrf qr svd triangular_solve ctc_loss "
    "linalg_cholesky linalg_cholesky_ex linalg_cond linalg_eig linalg_eigh linalg_eigvals linalg_eigvalsh "
    "linalg_householder_product linalg_inv linalg_inv_ex linalg_lstsq linalg_matrix_rank linalg_qr linalg_solve "
    f"linalg_svd linalg_svdvals linalg_tensorinv linalg_tensorsolve {LOSSES}".split()
)
FOLLOWS_FIRST = frozenset({"batch_norm", "instance_norm"})  # statistics in FP32, result in the input's format
# They fill their result with whatever was in memory, so nothing is to be rounded or looked at.
UNINITIALISED = frozenset({"empty_like", "new_empty", "new_empty_strided", "resize_", "resize_as_"})


@dataclass(frozen=True)
class Lists:
    """One autocast's lists: `matrix` work runs low, `wide` in FP32, the rest in the widest format of its inputs."""

    matrix: frozenset[str]
    wide: frozenset[str]
    refused: frozenset[str] = frozenset()


LISTS = {"cuda": Lists(MATRIX, WIDE, frozenset({"binary_cross_entropy"})), "cpu": Lists(CPU_MATRIX, CPU_WIDE)}


def is_in_place(name: str, kwargs: dict[str, Any]) -> bool:
    """True for `add_`, `__iadd__`, `relu(inplace=True)` and `out=`: afterwards the inputs are gone."""
    if name.endswith("__"):
        return name.startswith("__i") and name not in ("__invert__", "__index__", "__int__")
    return name.endswith("_") or bool(kwargs.get("inplace")) or kwargs.get("out") is not None
