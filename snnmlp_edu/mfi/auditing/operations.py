"""What each operation of PyTorch's lowest level (aten) does with its operands, by name.

The names are those of the dispatcher, without overload and without the underscore of the in-place form.
What is on no list is unknown, and unknown is never taken for harmless.
"""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What an operation does to data, as hardware would have to do it."""

    STEM = "stem multiply"
    ACCUMULATE = "synaptic accumulate"
    SHIFT = "shift"
    ADDITION = "addition"
    COMPARISON = "comparison"
    SELECTION = "selection"
    MOVEMENT = "data movement"
    MULTIPLICATION = "multiplication"
    CONSTANT = "constant"
    UNKNOWN = "unknown"


def names(text: str) -> frozenset[str]:
    """The names in a text, separated by spaces."""
    return frozenset(text.split())


# Name: the two operands that are multiplied and summed, and the one that is added to that.
MAPS: dict[str, tuple[str, str, str | None]] = {
    "mm": ("self", "mat2", None),
    "_int_mm": ("self", "mat2", None),
    "bmm": ("self", "mat2", None),
    "mv": ("self", "vec", None),
    "dot": ("self", "tensor", None),
    "matmul": ("self", "other", None),
    "addmm": ("mat1", "mat2", "self"),
    "addmv": ("mat", "vec", "self"),
    "baddbmm": ("batch1", "batch2", "self"),
    "addbmm": ("batch1", "batch2", "self"),
    "linear": ("input", "weight", "bias"),
    "conv1d": ("input", "weight", "bias"),
    "conv2d": ("input", "weight", "bias"),
    "conv3d": ("input", "weight", "bias"),
    "convolution": ("input", "weight", "bias"),
    "_convolution": ("input", "weight", "bias"),
    "mkldnn_convolution": ("self", "weight", "bias"),
    "cudnn_convolution": ("self", "weight", None),
}
BAGS = frozenset({"_embedding_bag", "_embedding_bag_forward_only", "embedding_bag"})
PRODUCTS = frozenset({"mul", "multiply"})
QUOTIENTS = frozenset({"div", "divide", "true_divide", "floor_divide", "remainder", "fmod"})
BIT_SHIFTS = frozenset({"bitwise_left_shift", "bitwise_right_shift", "__lshift__", "__rshift__", "ldexp"})
ROUNDINGS = frozenset({"floor", "ceil", "round", "trunc", "fix"})

# The result holds nothing of an operand's values: only its shape counts.
FACTORIES = names("""
    arange eye full full_like linspace new_full new_ones new_zeros ones ones_like scalar_tensor
    tril_indices triu_indices zeros zeros_like
    """)
# The result holds whatever the memory held before.
UNSET = names("empty empty_like empty_permuted empty_strided new_empty new_empty_strided")
# The old values of `self` do not matter.
OVERWRITES = frozenset({"copy", "fill", "zero"})
# The result is a position or a count, whatever the values were.
POSITIONS = names(
    "_unique2 argmax argmin argsort bucketize nonzero nonzero_static repeat_interleave searchsorted"
    " unique_consecutive unique_dim"
)
# They give Python, or an error, a yes or no.
ANSWERS = frozenset({"equal", "is_same_size", "_has_same_storage_numel", "_assert_async"})
# What may be made of the values that reach one place.
REDUCTIONS = {"sum": "add", "add": "add", "amax": "maximum", "amin": "minimum"}
# An operation on lists: its name begins so, and it does to each tensor what the rest of the name says.
ON_EACH = "_foreach_"

_BY_KIND = {
    Kind.ADDITION: """
        add bincount col2im count_nonzero cumsum index_add nansum neg rsub scatter_add sub subtract sum
        trace""",
    Kind.COMPARISON: """
        _assert_async _has_same_storage_numel _unique2 adaptive_max_pool2d all amax amin aminmax any argmax
        argmin argsort bitwise_and bitwise_not bitwise_or bitwise_xor bucketize clamp clamp_max clamp_min
        cummax cummin eq equal fmax fmin ge gt hardshrink hardtanh heaviside index_reduce is_same_size
        isfinite isin isinf isnan isneginf isposinf kthvalue le logical_and logical_not logical_or logical_xor
        lt max max_pool1d max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices maximum
        median min minimum mode nanmedian ne nonzero nonzero_static relu scatter_reduce searchsorted sign
        signbit sort threshold topk unique_consecutive unique_dim""",
    Kind.SELECTION: "abs masked_fill masked_scatter masked_select nan_to_num tril triu where",
    Kind.MOVEMENT: """
        _reshape_alias _to_copy _unsafe_view _upsample_nearest_exact1d _upsample_nearest_exact2d
        _upsample_nearest_exact3d alias as_strided as_strided_scatter cat channel_shuffle chunk clone concat
        constant_pad_nd contiguous copy detach diag_embed diagonal diagonal_scatter embedding expand expand_as
        fill flatten flip gather im2col index index_copy index_fill index_put index_select lift lift_fresh
        movedim narrow native_channel_shuffle pad permute pixel_shuffle pixel_unshuffle reflection_pad1d
        reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d replication_pad2d
        replication_pad3d reshape resolve_conj resolve_neg roll rot90 scatter select select_scatter slice
        slice_scatter split split_with_sizes squeeze stack t take tile to transpose unbind unflatten unfold
        unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze upsample_nearest1d upsample_nearest2d
        upsample_nearest3d view view_as zero""",
}
KINDS: dict[str, Kind] = {name: kind for kind, text in _BY_KIND.items() for name in names(text)}
KINDS |= dict.fromkeys(FACTORIES | UNSET, Kind.MOVEMENT)
KINDS |= dict.fromkeys(MAPS.keys() | BAGS, Kind.ACCUMULATE)
KINDS |= dict.fromkeys(BIT_SHIFTS | ROUNDINGS, Kind.SHIFT)
KINDS |= dict.fromkeys(PRODUCTS | QUOTIENTS, Kind.MULTIPLICATION)

_BY_REASON = {
    "a mean divides by the number of values": """
        _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d avg_pool1d
        avg_pool2d avg_pool3d mean nanmean""",
    "a normalisation multiplies and divides": """
        _batch_norm_no_update _batch_norm_with_update _fused_rms_norm _native_batch_norm_legit
        _native_batch_norm_legit_no_training _weight_norm _weight_norm_interface batch_norm
        batch_norm_update_stats cudnn_batch_norm group_norm instance_norm layer_norm
        linalg_vector_norm native_batch_norm native_group_norm native_layer_norm norm rms_norm std
        std_mean var var_mean""",
    "attention multiplies activations by activations": """
        _scaled_dot_product_attention_math _scaled_dot_product_efficient_attention
        _scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu
        scaled_dot_product_attention""",
    "it needs multiplications": """
        _log_softmax _prelu_kernel _safe_softmax _softmax addcdiv addcmul cos cumprod elu erf exp exp2 expm1
        gelu hardsigmoid hardswish leaky_relu lerp log log10 log1p log2 log_softmax logsumexp mish pow
        prod reciprocal rsqrt sigmoid silu sin softmax softplus sqrt square tan tanh
        upsample_bicubic2d upsample_bilinear2d""",
}
MULTIPLYING: dict[str, str] = {name: reason for reason, text in _BY_REASON.items() for name in names(text)}
KINDS |= dict.fromkeys(MULTIPLYING, Kind.MULTIPLICATION)

# Known, and refused even where nothing of the data goes in: another draw gives another network.
RANDOM = names("""
    bernoulli dropout exponential multinomial native_dropout normal poisson rand rand_like randint
    randint_like randn randn_like random randperm uniform
    """)


def base_name(schema_name: str) -> str:
    """The name in the lists above, for a name of the dispatcher.

    >>> base_name("aten::addmm_"), base_name("aten::__rshift__"), base_name("aten::__irshift__")
    ('addmm', '__rshift__', '__rshift__')
    """
    name = schema_name.partition("::")[2]
    if name.startswith("__"):
        return name.replace("__i", "__", 1)
    return name.removesuffix("_")
