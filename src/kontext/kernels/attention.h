/* Attention with the norms and rotations of queries and keys. */

/* Root-mean-square norm, scale, rotation by the row's angles. */
INLINE void norm_and_rotate(const float *x, const float *scale, const float *angles, long width, float by,
                            float *out) {
  scale_and_rotate(x, by / __builtin_sqrtf(mean_square(x, width) + EPSILON), scale, angles, width, out);
}

/* Row i of the queries (0), keys (1) or values (2) of a head. */
INLINE const float *own_row(const attention_t *p, int kind, long item, long head, long i) {
  return p->qkv + item * p->qkv_item + (kind * p->heads + head) * p->qkv_step + i * p->width;
}

/* Row i of the values, own rows first, then the prefix; null behind them. */
INLINE const float *value_row(const attention_t *p, long item, long head, long i) {
  if (i < p->rows) return own_row(p, 2, item, head, i);
  i -= p->rows;
  return i < p->prefix ? p->values + item * p->values_item + head * p->prefix_head + i * p->prefix_row : 0;
}

/* Keys and values of one head -> panels of the transposed keys, and of the values. `row` has room for COLUMNS
   rows. */
TARGET static void gather_head(const attention_t *p, long item, long head, float *row, number *keys,
                               number *values) {
  const long all = p->rows + p->prefix, padded = up(all, 32), w = p->width;
  for (long i = 0; i < padded; i += COLUMNS) {
    for (long j = i; j < i + COLUMNS; j++) {
      float *to = row + (j - i) * w;
      if (j >= all)
        memset(to, 0, w * sizeof(float));
      else if (j >= p->rows)
        memcpy(to, p->keys + item * p->keys_item + head * p->prefix_head + (j - p->rows) * p->prefix_row,
               w * sizeof(float));
      else
        norm_and_rotate(own_row(p, 1, item, head, j), p->key_scale + (j >= p->change) * w, p->rotary + j * w,
                        w, 1, to);
    }
    put_right(row, w, p->parts, keys + i / COLUMNS * right_size(w, p->parts));
  }
  for (long i = 0; i < padded; i += 2)
    put_rows(value_row(p, item, head, i), value_row(p, item, head, i + 1), w, i, right_size(padded, p->parts),
             p->parts, values);
}

/* A row of `count` scores -> e^(score - largest) as row `row` of a left factor; returns their sum. */
INLINE float softmax_row(float *scores, long count, int parts, long row, number *left) {
  const long padded = up(count, 32);
  vec largest = load(scores), sum = splat(0);
  for (long i = count; i < padded; i++) scores[i] = scores[0]; /* not larger than the largest */
  for (long i = LANES; i < padded; i += LANES) largest = larger(largest, load(scores + i));
  const float most = largest_of(largest);
  for (long i = 0; i < padded; i += LANES) {
    const vec e = keep_first(exponential(load(scores + i) - most), count - i);
    sum += e;
    store(scores + i, e);
  }
  put_left(scores, 0, padded, padded, parts, row, left);
  return sum_of(sum);
}

/* ROWS queries of one head, from row `from` on: out = softmax(queries keys^T / sqrt(width)) values. */
TARGET static void attend_block(const attention_t *p, long item, long head, long from, float *row,
                                float *scores, number *queries, number *shares, const number *keys,
                                const number *values) {
  const long all = p->rows + p->prefix, padded = up(all, 32), count = least(ROWS, p->stop - from);
  const long w = p->width;
  float sums[ROWS], results[ROWS * COLUMNS] __attribute__((aligned(64)));
  for (long i = 0; i < count; i++) {
    const float *scale = p->query_scale + (from + i >= p->change) * w, *angles = p->rotary + (from + i) * w;
    norm_and_rotate(own_row(p, 0, item, head, from + i), scale, angles, w, 1 / __builtin_sqrtf(w), row);
    put_left(row, 0, w, w, p->parts, i, queries);
  }
  for (long j = 0; j < all; j += COLUMNS)
    multiply(queries, keys + j / COLUMNS * right_size(w, p->parts), w, p->parts, count, scores + j, padded);
  for (long i = 0; i < count; i++) sums[i] = softmax_row(scores + i * padded, all, p->parts, i, shares);
  for (long j = 0; j < w; j += COLUMNS) {
    multiply(shares, values + j / COLUMNS * right_size(padded, p->parts), padded, p->parts, count, results,
             COLUMNS);
    for (long i = 0; i < count; i++) {
      float *out = p->out + item * p->out_item + (from + i) * p->out_row + head * w + j;
      for (long part = 0; part < COLUMNS; part += LANES)
        store(out + part, load(results + i * COLUMNS + part) * (1 / sums[i]));
    }
  }
}

TARGET static int attention_share(const void *job, long share, long count) {
  const attention_t *p = job;
  const long all = up(p->rows + p->prefix, 32), blocks = up(p->stop - p->start, ROWS) / ROWS, w = p->width;
  const long units = p->items * p->heads * blocks;
  const long keys_size = all / COLUMNS * right_size(w, p->parts);
  const long values_size = w / COLUMNS * right_size(all, p->parts);
  const long queries_size = up(left_size(w, p->parts), 32), shares_size = left_size(all, p->parts);
  const long floats = up(COLUMNS * w + ROWS * all, 16);
  const long numbers = keys_size + values_size + queries_size + shares_size;
  float *row = aligned_alloc(64, up(floats * sizeof(float) + numbers * sizeof(number), 64));
  if (!row) return 1;
  float *scores = row + COLUMNS * w;
  number *keys = (number *)(row + floats), *values = keys + keys_size, *queries = values + values_size;
  number *shares = queries + queries_size;
  memset(queries, 0, (queries_size + shares_size) * sizeof(number));
  long gathered = -1;
  for (long unit = units * share / count; unit < units * (share + 1) / count; unit++) {
    const long pair = unit / blocks, item = pair / p->heads, head = pair % p->heads;
    if (pair != gathered) gather_head(p, item, head, row, keys, values);
    gathered = pair;
    attend_block(p, item, head, p->start + unit % blocks * ROWS, row, scores, queries, shares, keys, values);
  }
  free(row);
  return 0;
}
