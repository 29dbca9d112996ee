/* What surrounds the products of a block in training, forward and backward: adaptive layer norm, gated
   residual, GELU. Sums in float32; everything that a product takes or gives may be bfloat16. */

/* Row `i` of an item in memory. */
INLINE long place(const rows_t *r, long item, long i) {
  return i < r->first ? item * r->first + i : (r->items - 1) * r->first + item * (r->rows - r->first) + i;
}

INLINE void add_to(float *sums, long i, vec value) { store(sums + i, load(sums + i) + value); }

/* Mean, and 1 / standard deviation. */
INLINE void moments(const float *x, long width, float *mean, float *by) {
  vec sum = splat(0), squares = sum;
  for (long i = 0; i < width; i += LANES) sum = sum + load(x + i);
  *mean = sum_of(sum) / width;
  for (long i = 0; i < width; i += LANES) {
    const vec off = load(x + i) - *mean;
    squares = squares + off * off;
  }
  *by = 1 / __builtin_sqrtf(sum_of(squares) / width + EPSILON);
}

INLINE void norm_item(const norm_t *p, long item, const int bfloat16) {
  const rows_t *r = &p->rows;
  const float *shift = p->shift + item * p->modulation_item, *factor = p->factor + item * p->modulation_item;
  for (long row = 0; row < r->rows; row++) {
    const long at = place(r, item, row) * r->width;
    float mean, by;
    moments(p->x + at, r->width, &mean, &by);
    for (long i = 0; i < r->width; i += LANES)
      store_number(p->normed, at + i,
                   load(factor + i) * ((load(p->x + at + i) - mean) * by) + load(shift + i), bfloat16);
  }
}

/* x's gradient is that of n = (x - mean) / deviation, less its mean and its part along n, / deviation. */
INLINE void norm_item_backward(const norm_t *p, long item, const int bfloat16) {
  const rows_t *r = &p->rows;
  const float *factor = p->factor + item * p->modulation_item;
  float *shift_sums = p->shift_sums + item * r->width, *factor_sums = p->factor_sums + item * r->width;
  memset(shift_sums, 0, r->width * sizeof(float));
  memset(factor_sums, 0, r->width * sizeof(float));
  for (long row = 0; row < r->rows; row++) {
    const long at = place(r, item, row) * r->width;
    float mean, by;
    moments(p->x + at, r->width, &mean, &by);
    vec sum = splat(0), along = sum;
    for (long i = 0; i < r->width; i += LANES) {
      const vec gradient = load_number(p->normed, at + i, bfloat16), n = (load(p->x + at + i) - mean) * by;
      add_to(shift_sums, i, gradient);
      add_to(factor_sums, i, gradient * n);
      sum = sum + gradient * load(factor + i);
      along = along + gradient * load(factor + i) * n;
    }
    const float mean_gradient = sum_of(sum) / r->width, mean_along = sum_of(along) / r->width;
    for (long i = 0; i < r->width; i += LANES) {
      const vec gradient = load_number(p->normed, at + i, bfloat16) * load(factor + i);
      const vec n = (load(p->x + at + i) - mean) * by;
      store(p->x_gradient + at + i,
            load(p->residual_gradient + at + i) + (gradient - mean_gradient - n * mean_along) * by);
    }
  }
}

INLINE void residual_item(const residual_t *p, long item, const int bfloat16) {
  const rows_t *r = &p->rows;
  const float *gate = p->gate + item * p->gate_item;
  for (long row = 0; row < r->rows; row++) {
    const long at = place(r, item, row) * r->width;
    for (long i = 0; i < r->width; i += LANES)
      store(p->out + at + i,
            load(p->x + at + i) + load(gate + i) * (load_number(p->y, at + i, bfloat16) + load(p->bias + i)));
  }
}

INLINE void residual_item_backward(const residual_t *p, long item, const int bfloat16) {
  const rows_t *r = &p->rows;
  const float *gate = p->gate + item * p->gate_item;
  float *gate_sums = p->gate_sums + item * r->width, *y_sums = p->y_sums + item * r->width;
  memset(gate_sums, 0, r->width * sizeof(float));
  memset(y_sums, 0, r->width * sizeof(float));
  for (long row = 0; row < r->rows; row++) {
    const long at = place(r, item, row) * r->width;
    for (long i = 0; i < r->width; i += LANES) {
      const vec gradient = load(p->x + at + i), y_gradient = gradient * load(gate + i);
      add_to(gate_sums, i, gradient * (load_number(p->y, at + i, bfloat16) + load(p->bias + i)));
      add_to(y_sums, i, y_gradient);
      store_number(p->y_gradient, at + i, y_gradient, bfloat16);
    }
  }
}

INLINE void gelu_item(const gelu_t *p, long item, const int bfloat16) {
  const rows_t r = p->rows;
  const float *bias = p->bias;
  const void *x = p->x;
  void *out = p->out;
  for (long row = 0; row < r.rows; row++) {
    const long at = place(&r, item, row), from = at * p->x_row, to = at * p->out_row;
    for (long i = 0; i < r.width; i += LANES) {
      __builtin_prefetch((const char *)x + (from + p->x_row + i) * (bfloat16 ? 2 : 4));
      store_number(out, to + i, gelu(load_number(x, from + i, bfloat16) + load(bias + i)), bfloat16);
    }
  }
}

/* With s = 1 / (1 + e^(-2u)), gelu(x) = x s and gelu'(x) = s + x s (1 - s) 2u'. */
INLINE void gelu_item_backward(const gelu_t *p, long item, const int bfloat16) {
  const rows_t r = p->rows;
  const float *bias = p->bias;
  const void *given = p->x, *out = p->out;
  void *x_gradient = p->x_gradient;
  float *sums = p->x_sums + item * r.width;
  memset(sums, 0, r.width * sizeof(float));
  for (long row = 0; row < r.rows; row++) {
    const long at = place(&r, item, row), from = at * p->x_row, to = at * p->out_row;
    const long gradient_to = at * p->x_gradient_row;
    for (long i = 0; i < r.width; i += LANES) {
      __builtin_prefetch((const char *)given + (from + p->x_row + i) * (bfloat16 ? 2 : 4));
      __builtin_prefetch((const char *)out + (to + p->out_row + i) * (bfloat16 ? 2 : 4));
      __builtin_prefetch(
          (const char *)x_gradient + (gradient_to + p->x_gradient_row + i) * (bfloat16 ? 2 : 4), 1);
      const vec x = load_number(given, from + i, bfloat16) + load(bias + i), square = x * x * 0.044715f;
      const vec s = 1.f / (1.f + exponential(x * (square + 1.f) * -1.5957691216f));
      const vec slope = s + x * s * (1.f - s) * ((square * 3.f + 1.f) * 1.5957691216f);
      const vec gradient = load_number(out, to + i, bfloat16) * slope;
      add_to(sums, i, gradient);
      store_number(x_gradient, gradient_to + i, gradient, bfloat16);
    }
  }
}

#define SHARE(name, type)                                                                \
  TARGET static int name##_share(const void *job, long share, long shares) {             \
    const type *p = job;                                                                 \
    const rows_t *r = &p->rows;                                                          \
    for (long i = r->items * share / shares; i < r->items * (share + 1) / shares; i++) { \
      if (r->backward && r->bfloat16)                                                    \
        name##_item_backward(p, i, 1);                                                   \
      else if (r->backward)                                                              \
        name##_item_backward(p, i, 0);                                                   \
      else if (r->bfloat16)                                                              \
        name##_item(p, i, 1);                                                            \
      else                                                                               \
        name##_item(p, i, 0);                                                            \
    }                                                                                    \
    return 0;                                                                            \
  }
SHARE(norm, norm_t)
SHARE(residual, residual_t)
SHARE(gelu, gelu_t)
#undef SHARE
