/* Layouts that the files of the kernels and `library.py` share. All tensors outside are row-major float32;
   distances between rows, heads and items are in floats. */

#ifndef KONTEXT_KERNELS_H
#define KONTEXT_KERNELS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PRODUCT, ATTENTION, CONVOLUTION, NORM, RESIDUAL, GELU, TRAINING_ATTENTION, KINDS };

/* A piece of work in `shares` shares, which threads take in any order. */
typedef struct {
  int kind; /* of what this is the beginning */
  int shares, taken, done, failed;
} job_t;

/* out = x W^T + bias for `items` pictures of `rows` rows. */
typedef struct {
  job_t job;
  int parts; /* bfloat16 products of which a float32 one is made: 1, 2 or 3 (product_amx.h) */
  const float *x;
  long x_row, x_item;
  const float *shift, *factor; /* x := shift + factor layer_norm(x); or null */
  long shift_item, factor_item;
  const void *weights; /* panels of (columns, inner) */
  const float *bias;   /* or null */
  float *heads; /* the first `head_columns` go here, every `head_width` of them to a matrix of its own */
  long heads_step, heads_item, head_width, head_columns;
  float *out; /* the other columns */
  long out_row, out_item;
  long gelu;         /* out = gelu(x W^T + bias) */
  const float *gate; /* out += gate (x W^T + bias); or null */
  long gate_item;
  long items, rows, columns, inner;
} product_t;

/* Softmax attention of `items` sequences of `rows` rows. Queries and keys arrive as a linear layer left them;
   RMS norm and rotation happen here. Keys and values of `prefix` further rows arrive finished. Rows `start`
   to `stop` are computed. */
typedef struct {
  job_t job;
  int parts;
  const float *qkv; /* (items, 3, heads, rows, width) */
  long qkv_step, qkv_item;
  const float *query_scale, *key_scale; /* (2, width): of the rows before `change`, of the others */
  long change;
  const float *rotary;        /* (rows, width / 2, 2): cosines and sines */
  const float *keys, *values; /* (items, heads, prefix, width); or null */
  long prefix_row, prefix_head, keys_item, values_item;
  float *out; /* (items, rows, heads width) */
  long out_row, out_item;
  long items, heads, width, rows, prefix, start, stop; /* width: of one head, a multiple of 32 */
} attention_t;

/* out = 3 x 3 convolution of silu(group_norm(x)), or of x, + bias + residual. Pictures are (height, width,
   channels), zero outside; channels are multiples of 16, columns (output channels) any number. */
typedef struct {
  job_t job;
  int parts; /* 1 */
  const float *x;
  long height, width, channels;         /* of the output; */
  long enlarge;                         /* x has half as many pixels on each side, each used four times */
  const float *norm_weight, *norm_bias; /* or null: neither norm nor silu */
  long groups;
  const double *sums; /* (shares, channels, 2): of x and its squares over `counted` pixels, */
  long counted;
  const float *mean, *variance; /* or, where sums is null, given for each channel */
  const void *weights;          /* panels of (columns, 3, 3 channels); each third padded to `inner_step` */
  const float *bias, *residual; /* residual: as out, or null */
  float *out;
  double *out_sums; /* (shares, columns, 2): of out, or null */
  long columns;
} convolution_t;

/* The beginning of the parts of a block in training. Sequences of `rows` rows lie in two pieces: the `first`
   rows of all of them, then the other rows of all of them. Numbers that products take or give (`void *`) are
   bfloat16 or float32. Sums are over the rows of each item: (items, width). Widths are multiples of 32. */
typedef struct {
  job_t job;
  int bfloat16, backward;
  long items, rows, first, width;
} rows_t;

/* normed = shift + factor layer_norm(x), or backward, where `normed` is its gradient:
   x_gradient = residual_gradient + what comes through the norm. */
typedef struct {
  rows_t rows;
  const float *x, *shift, *factor;
  long modulation_item;
  void *normed;
  const float *residual_gradient;
  float *x_gradient, *shift_sums, *factor_sums;
} norm_t;

/* out = x + gate (y + bias), or backward, where `x` is the gradient of both `out` and x:
   y_gradient = gate x. */
typedef struct {
  rows_t rows;
  const float *x, *gate, *bias;
  long gate_item;
  const void *y;
  float *out;
  void *y_gradient;
  float *gate_sums, *y_sums; /* the latter of y's gradient */
} residual_t;

/* out = gelu(x + bias), or backward, where `out` is its gradient: x_gradient, and its sums. */
typedef struct {
  rows_t rows;
  const void *x;
  const float *bias;
  void *out, *x_gradient;
  long x_row, out_row, x_gradient_row;
  float *x_sums;
} gelu_t;

/* A matrix of each piece: of the first rows, of the others. */
typedef struct {
  void *at[2];
  long row[2];
} pieces_t;

/* Softmax attention, which saves its largest scores and sums for the backward pass. Rows before `start`
   only provide keys and values. Every `sharing` items in a row see one prefix. */
typedef struct {
  rows_t rows; /* width: of one head */
  long heads, start, prefix, sharing;
  pieces_t qkv; /* queries, keys, values, as products left them: without biases */
  const float *bias[2];
  const float *query_scale, *key_scale;    /* (2, width): of the first rows, of the others */
  const float *rotary;                     /* (rows, width / 2, 2) */
  long rotary_item;                        /* floats from the table of an item to the next; 0: of all items */
  const void *prefix_keys, *prefix_values; /* (items / sharing, heads, prefix, width), normed and turned */
  pieces_t out;                            /* or, backward, its gradient */
  float *softmax;      /* (items, heads, rows, 2): the largest score, 1 / the sum of exponentials */
  void *keys, *values; /* (items, heads, rows, width): a prefix for others, or its gradients; or null */
  pieces_t qkv_gradient;
  void *prefix_keys_gradient, *prefix_values_gradient;
  float *scale_sums; /* (items, heads, queries and keys, 2, width): gradients of the scales */
  float *qkv_sums;   /* (items, 2, 3 heads width): of qkv's gradient, over the first rows, over the others */
} training_attention_t;

/* One instruction set's implementation. Kinds of jobs that it lacks are null. */
typedef struct {
  const char *name;
  int (*supported)(void);
  void (*enter)(void), (*leave)(void);                           /* around the work of each thread; or null */
  int (*share[KINDS])(const void *job, long share, long shares); /* returns 1 without memory */
  long (*panel_bytes)(long columns, long inner, int parts);
  int (*pack)(const float *weights, long columns, long inner, int parts, void *panels);
  int inner_step; /* the thirds of a convolution's weights are padded to multiples of this */
  int weight_bytes;
} backend_t;

extern const backend_t kontext_amx, kontext_avx512, kontext_avx512bf16, kontext_avx2, kontext_neon;

static inline long up(long value, long to) { return (value + to - 1) / to * to; }
static inline long least(long a, long b) { return a < b ? a : b; }

#endif
