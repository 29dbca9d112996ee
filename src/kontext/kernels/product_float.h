/* The micro-kernel in float32, for every instruction set with fused multiply-add: ROWS rows times two vectors
   of columns are summed in registers. `parts` has no effect: products are float32's.

   Left factor: ROWS rows of `inner` numbers, padded apart. Right factor (panels): for every COLUMNS columns,
   [inner][COLUMNS]. */

typedef float number;

enum {
  COLUMNS = 2 * LANES, /* of a panel */
  GROUP = ROWS,        /* pixels of a convolution that lie in one row of the picture */
  GROUPS = 1,          /* groups that are multiplied at a time */
  INNER_STEP = 1,      /* `inner` is padded to a multiple of this */
};

/* Numbers from row to row: not a multiple of a page, or all rows would compete for the same cache lines. */
INLINE long left_row(long inner) { return up(inner, 16) + 16; }
INLINE long left_size(long inner, int parts) { return (void)parts, ROWS * left_row(inner); }
INLINE long right_size(long inner, int parts) { return (void)parts, COLUMNS * inner; }

/* Numbers `at` to `at` + `count` of row `row` of a left factor. */
INLINE void put_left(const float *x, long at, long count, long inner, int parts, long row, number *left) {
  (void)parts;
  memcpy(left + row * left_row(inner) + at, x, count * sizeof(float));
}

INLINE void put_pixel(vec x, number *left) { store(left, x); }

/* COLUMNS rows of `inner` floats -> a panel, in which they are columns. */
INLINE void put_right(const float *x, long inner, int parts, number *panel) {
  (void)parts;
  for (long j = 0; j < COLUMNS; j++)
    for (long i = 0; i < inner; i++) panel[i * COLUMNS + j] = x[j * inner + i];
}

/* Rows `row` and `row` + 1 of a right factor of `width` columns, whose panels are `panel` numbers apart;
   null: zeros. */
INLINE void put_rows(const float *even, const float *odd, long width, long row, long panel, int parts,
                     number *right) {
  (void)parts;
  for (long i = 0; i < width; i += LANES) {
    number *to = right + i / COLUMNS * panel + row * COLUMNS + i % COLUMNS;
    store(to, even ? load(even + i) : splat(0));
    store(to + COLUMNS, odd ? load(odd + i) : splat(0));
  }
}

/* out (rows x COLUMNS) = the sum, over `segments`, of left rows, `left_row` apart, times right rows. */
INLINE void accumulate(const number *left, long left_row, long segments, long segment, long inner,
                       const number *right, float *out, long out_row, const int rows, const int vectors) {
  vec sums[ROWS][2];
#pragma GCC unroll 16
  for (int i = 0; i < rows; i++) sums[i][0] = sums[i][1] = splat(0);
  for (long s = 0; s < segments; s++, left += segment)
    for (long k = 0; k < inner; k++, right += COLUMNS) {
      const vec first = load(right), second = vectors > 1 ? load(right + LANES) : first;
#pragma GCC unroll 16
      for (int i = 0; i < rows; i++) {
        const vec x = splat(left[i * left_row + k]);
        sums[i][0] = sums[i][0] + x * first;
        if (vectors > 1) sums[i][1] = sums[i][1] + x * second;
      }
    }
#pragma GCC unroll 16
  for (int i = 0; i < rows; i++) {
    store(out + i * out_row, sums[i][0]);
    if (vectors > 1) store(out + i * out_row + LANES, sums[i][1]);
  }
}

/* With `rows` and `vectors` known to the compiler: every sum has a register of its own. */
TARGET static void dispatch(const number *left, long left_row, long segments, long segment, long inner,
                            const number *right, float *out, long out_row, long rows, int vectors) {
#define CASE(n)                                                                                          \
  case n:                                                                                                \
    if (n > ROWS) break;                                                                                 \
    if (vectors > 1)                                                                                     \
      accumulate(left, left_row, segments, segment, inner, right, out, out_row, n < ROWS ? n : ROWS, 2); \
    else                                                                                                 \
      accumulate(left, left_row, segments, segment, inner, right, out, out_row, n < ROWS ? n : ROWS, 1); \
    break;
  switch (rows) {
    CASE(1)
    CASE(2)
    CASE(3)
    CASE(4)
    CASE(5)
    CASE(6)
    CASE(7)
    CASE(8)
    CASE(9)
    CASE(10)
    CASE(11)
    CASE(12)
  }
#undef CASE
}

/* out (rows x COLUMNS, rows `stride` floats apart) = left times a panel. */
INLINE void multiply(const number *left, const number *right, long inner, int parts, long rows, float *out,
                     long stride) {
  (void)parts;
  dispatch(left, left_row(inner), 1, 0, inner, right, out, stride, least(rows, ROWS), 2);
}

/* `rows` pixels from *left on, times a panel of a convolution; `row` numbers from one row of the picture to
   the next. Only the first half of the columns unless `wide`. */
INLINE void convolve(const number *const *left, long count, long rows, long channels, long row,
                     const number *right, int wide, float *out) {
  (void)count;
  dispatch(*left, channels, 3, row, 3 * channels, right, out, COLUMNS, rows, 1 + wide);
}
