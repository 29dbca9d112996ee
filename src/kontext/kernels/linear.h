/* A linear layer with what surrounds it: adaptive layer norm before; GELU, or gate and residual, after. */

enum {
  BLOCK = 1 << 18,    /* bytes of the left factor that stay in the second cache while the right one passes */
  CHUNK = 400 * 1024, /* bytes of the right factor likewise */
};

TARGET static long panel_bytes(long columns, long inner, int parts) {
  return up(columns, 32) / COLUMNS * right_size(up(inner, INNER_STEP), parts) * sizeof(number);
}

/* Weights (columns, inner) -> panels of their transpose. 1: no memory. */
TARGET static int pack(const float *weights, long columns, long inner, int parts, void *panels) {
  const long padded = up(inner, INNER_STEP);
  float *rows = malloc(COLUMNS * padded * sizeof(float));
  if (!rows) return 1;
  for (long i = 0; i < up(columns, 32); i += COLUMNS) {
    memset(rows, 0, COLUMNS * padded * sizeof(float));
    for (long j = i; j < least(i + COLUMNS, columns); j++)
      memcpy(rows + (j - i) * padded, weights + j * inner, inner * sizeof(float));
    put_right(rows, padded, parts, (number *)panels + i / COLUMNS * right_size(padded, parts));
  }
  free(rows);
  return 0;
}

INLINE void layer_norm(const float *x, const float *shift, const float *factor, long width, float *out) {
  vec sum = splat(0), squares = sum;
  for (long i = 0; i < width; i += LANES) sum += load_first(x + i, width - i);
  const float mean = sum_of(sum) / width;
  for (long i = 0; i < width; i += LANES) {
    const vec off = keep_first(load_first(x + i, width - i) - mean, width - i);
    squares = squares + off * off;
  }
  const float by = 1 / __builtin_sqrtf(sum_of(squares) / width + EPSILON);
  for (long i = 0; i < width; i += LANES) {
    const vec normed = (load_first(x + i, width - i) - mean) * by;
    store_first(out + i, load_first(factor + i, width - i) * normed + load_first(shift + i, width - i),
                width - i);
  }
}

/* `count` rows of one item from `from` on -> left factors. `row` has room for one, and zeros behind it. */
TARGET static void gather(const product_t *p, long item, long from, long count, float *row, number *left) {
  const long inner = up(p->inner, INNER_STEP), block = left_size(inner, p->parts);
  if (count % ROWS) memset(left + count / ROWS * block, 0, block * sizeof(number));
  for (long i = 0; i < count; i++) {
    const float *x = p->x + item * p->x_item + (from + i) * p->x_row;
    if (p->shift)
      layer_norm(x, p->shift + item * p->shift_item, p->factor + item * p->factor_item, p->inner, row);
    else if (inner != p->inner)
      memcpy(row, x, p->inner * sizeof(float));
    put_left(p->shift || inner != p->inner ? row : x, 0, inner, inner, p->parts, i % ROWS,
             left + i / ROWS * block);
  }
}

/* ROWS x COLUMNS results -> their place, with all that happens to them on the way. */
INLINE void deliver(const product_t *p, const float *results, long item, long from, long count, long column) {
  const int to_head = column < p->head_columns;
  const long row = to_head ? p->head_width : p->out_row;
  float *out = to_head ? p->heads + item * p->heads_item + column / p->head_width * p->heads_step +
                             column % p->head_width
                       : p->out + item * p->out_item + column - p->head_columns;
  for (long part = 0; part < COLUMNS && column + part < p->columns; part += LANES) {
    const long width = p->columns - column - part;
    const vec bias = p->bias ? load_first(p->bias + column + part, width) : splat(0);
    const vec gate = p->gate ? load_first(p->gate + item * p->gate_item + column + part, width) : bias;
    for (long i = 0; i < count; i++) {
      float *at = out + (from + i) * row + part;
      vec y = load(results + i * COLUMNS + part) + bias;
      if (p->gelu && !to_head) y = gelu(y);
      if (p->gate) y = gate * y + load_first(at, width);
      store_first(at, y, width);
    }
  }
}

/* Rows `from` to `to` of one item, columns `left` to `right` (multiples of COLUMNS). */
TARGET static void multiply_block(const product_t *p, long item, long from, long to, long left, long right,
                                  float *row, number *rows) {
  const long inner = up(p->inner, INNER_STEP);
  const long block = left_size(inner, p->parts), panel = right_size(inner, p->parts);
  const long chunk = (CHUNK / (panel * (long)sizeof(number)) + 1) * COLUMNS;
  float results[ROWS * COLUMNS] __attribute__((aligned(64)));
  gather(p, item, from, to - from, row, rows);
  for (long begin = left; begin < right; begin += chunk)
    for (long i = from; i < to; i += ROWS)
      for (long j = begin; j < least(right, begin + chunk); j += COLUMNS) {
        multiply(rows + (i - from) / ROWS * block, (const number *)p->weights + j / COLUMNS * panel, inner,
                 p->parts, to - i, results, COLUMNS);
        deliver(p, results, item, i, least(ROWS, to - i), j);
      }
}

TARGET static int product_share(const void *job, long share, long shares) {
  const product_t *p = job;
  const long inner = up(p->inner, INNER_STEP), block_bytes = left_size(inner, p->parts) * sizeof(number);
  const long blocks = up(p->rows, ROWS) / ROWS, columns = up(p->columns, COLUMNS) / COLUMNS;
  /* The rows are shared where they divide well; else the columns, and every thread gathers all rows. */
  const int by_rows = p->items * blocks >= 6 * shares || (p->items == 1 && p->rows % (ROWS * shares) == 0);
  const long height = by_rows ? least(blocks, BLOCK / block_bytes + 1) : blocks; /* blocks at a time */
  const long begin = by_rows ? p->items * blocks * share / shares : 0;
  const long end = by_rows ? p->items * blocks * (share + 1) / shares : p->items * blocks;
  const long left = by_rows ? 0 : columns * share / shares * COLUMNS;
  const long right = by_rows ? columns * COLUMNS : columns * (share + 1) / shares * COLUMNS;
  if (begin == end || left == right) return 0; /* more threads than work */
  const long row_bytes = up(inner * sizeof(float), 64);
  float *row = aligned_alloc(64, row_bytes + up(height * block_bytes, 64));
  if (!row) return 1;
  number *rows = (number *)((char *)row + row_bytes);
  memset(row, 0, row_bytes);
  for (long at = begin; at < end;) {
    const long item = at / blocks, from = at % blocks * ROWS;
    const long count = least(least(end - at, blocks - at % blocks), height);
    multiply_block(p, item, from, least(p->rows, from + count * ROWS), left, right, row, rows);
    at += count;
  }
  free(row);
  return 0;
}
