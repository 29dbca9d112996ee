"""Layouts of the jobs, as in `kernels.h`. Pointers are addresses of tensors, which must live as long."""

from __future__ import annotations

import ctypes

POINTER, LONG, INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int

PRODUCT, ATTENTION, CONVOLUTION, NORM, RESIDUAL, GELU, TRAINING_ATTENTION = range(7)
_STATE = [("kind", INT), ("shares", INT), ("taken", INT), ("done", INT), ("failed", INT)]
_JOB = [*_STATE, ("parts", INT)]
_ROWS = [
    *_STATE,
    ("bfloat16", INT),
    ("backward", INT),
    ("items", LONG),
    ("rows", LONG),
    ("first", LONG),
    ("width", LONG),
]


class Product(ctypes.Structure):
    """`product_t`."""

    _fields_ = [
        *_JOB,
        ("x", POINTER),
        ("x_row", LONG),
        ("x_item", LONG),
        ("shift", POINTER),
        ("factor", POINTER),
        ("shift_item", LONG),
        ("factor_item", LONG),
        ("weights", POINTER),
        ("bias", POINTER),
        ("heads", POINTER),
        ("heads_step", LONG),
        ("heads_item", LONG),
        ("head_width", LONG),
        ("head_columns", LONG),
        ("out", POINTER),
        ("out_row", LONG),
        ("out_item", LONG),
        ("gelu", LONG),
        ("gate", POINTER),
        ("gate_item", LONG),
        ("items", LONG),
        ("rows", LONG),
        ("columns", LONG),
        ("inner", LONG),
    ]


class Attention(ctypes.Structure):
    """`attention_t`."""

    _fields_ = [
        *_JOB,
        ("qkv", POINTER),
        ("qkv_step", LONG),
        ("qkv_item", LONG),
        ("query_scale", POINTER),
        ("key_scale", POINTER),
        ("change", LONG),
        ("rotary", POINTER),
        ("keys", POINTER),
        ("values", POINTER),
        ("prefix_row", LONG),
        ("prefix_head", LONG),
        ("keys_item", LONG),
        ("values_item", LONG),
        ("out", POINTER),
        ("out_row", LONG),
        ("out_item", LONG),
        ("items", LONG),
        ("heads", LONG),
        ("width", LONG),
        ("rows", LONG),
        ("prefix", LONG),
        ("start", LONG),
        ("stop", LONG),
    ]


class Convolution(ctypes.Structure):
    """`convolution_t`."""

    _fields_ = [
        *_JOB,
        ("x", POINTER),
        ("height", LONG),
        ("width", LONG),
        ("channels", LONG),
        ("enlarge", LONG),
        ("norm_weight", POINTER),
        ("norm_bias", POINTER),
        ("groups", LONG),
        ("sums", POINTER),
        ("counted", LONG),
        ("mean", POINTER),
        ("variance", POINTER),
        ("weights", POINTER),
        ("bias", POINTER),
        ("residual", POINTER),
        ("out", POINTER),
        ("out_sums", POINTER),
        ("columns", LONG),
    ]


class Norm(ctypes.Structure):
    """`norm_t`."""

    _fields_ = [
        *_ROWS,
        ("x", POINTER),
        ("shift", POINTER),
        ("factor", POINTER),
        ("modulation_item", LONG),
        ("normed", POINTER),
        ("residual_gradient", POINTER),
        ("x_gradient", POINTER),
        ("shift_sums", POINTER),
        ("factor_sums", POINTER),
    ]


class Residual(ctypes.Structure):
    """`residual_t`."""

    _fields_ = [
        *_ROWS,
        ("x", POINTER),
        ("gate", POINTER),
        ("bias", POINTER),
        ("gate_item", LONG),
        ("y", POINTER),
        ("out", POINTER),
        ("y_gradient", POINTER),
        ("gate_sums", POINTER),
        ("y_sums", POINTER),
    ]


class Gelu(ctypes.Structure):
    """`gelu_t`."""

    _fields_ = [
        *_ROWS,
        ("x", POINTER),
        ("bias", POINTER),
        ("out", POINTER),
        ("x_gradient", POINTER),
        ("x_row", LONG),
        ("out_row", LONG),
        ("x_gradient_row", LONG),
        ("x_sums", POINTER),
    ]


class MatrixChunks(ctypes.Structure):
    """`pieces_t`."""

    _fields_ = [("at", POINTER * 2), ("row", LONG * 2)]


class TrainingAttention(ctypes.Structure):
    """`training_attention_t`."""

    _fields_ = [
        *_ROWS,
        ("heads", LONG),
        ("start", LONG),
        ("prefix", LONG),
        ("sharing", LONG),
        ("qkv", MatrixChunks),
        ("bias", POINTER * 2),
        ("query_scale", POINTER),
        ("key_scale", POINTER),
        ("rotary", POINTER),
        ("rotary_item", LONG),
        ("prefix_keys", POINTER),
        ("prefix_values", POINTER),
        ("out", MatrixChunks),
        ("softmax", POINTER),
        ("keys", POINTER),
        ("values", POINTER),
        ("qkv_gradient", MatrixChunks),
        ("prefix_keys_gradient", POINTER),
        ("prefix_values_gradient", POINTER),
        ("scale_sums", POINTER),
        ("qkv_sums", POINTER),
    ]


Job = Product | Attention | Convolution | Norm | Residual | Gelu | TrainingAttention
LAYOUTS: dict[int, type[ctypes.Structure]] = {
    PRODUCT: Product,
    ATTENTION: Attention,
    CONVOLUTION: Convolution,
    NORM: Norm,
    RESIDUAL: Residual,
    GELU: Gelu,
    TRAINING_ATTENTION: TrainingAttention,
}
