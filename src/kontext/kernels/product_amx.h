/* The micro-kernel in tiles (Intel AMX): a tile holds 16 rows of 64 bytes; one instruction multiplies 16 x 32
   by 32 x 16 bfloat16 numbers and adds to 16 x 16 floats.

   A float32 number is the sum of two bfloat16 ones to 16 bits, x = high(x) + low(x), so that

       x w = high(x) high(w) + low(x) high(w) + high(x) low(w)

   is float32's product to some 1e-5 of its size. `parts` says how many of these terms are taken: 3; 2 where
   the right factor is bfloat16 to begin with, as published weights are, and has no low part; 1 for bfloat16's
   product.

   Both factors lie in tiles: for every group of 16 rows (left) or columns (right), for every 32 of the inner
   dimension, a tile of the high parts and, where they are used, one of the low. A right tile has the inner
   dimension in pairs: [16 pairs][16 columns][2]. */

typedef uint16_t number;

enum {
  TILE = 512, /* numbers of one tile of bfloat16 */
  ROWS = 32,
  COLUMNS = 32,    /* of a panel: two groups */
  GROUP = 16,      /* pixels of a convolution that lie in one row of the picture */
  GROUPS = 2,      /* groups that are multiplied at a time */
  INNER_STEP = 32, /* `inner` is padded to a multiple of this */
};

/* Numbers from one tile of the inner dimension to the next. */
INLINE long left_step(int parts) { return parts == 1 ? TILE : 2 * TILE; }
INLINE long right_step(int parts) { return parts == 3 ? 2 * TILE : TILE; }
INLINE long left_size(long inner, int parts) { return 2 * (inner / 32) * left_step(parts); }
INLINE long right_size(long inner, int parts) { return 2 * (inner / 32) * right_step(parts); }

INLINE __m512 widen(__m256i bfloats) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bfloats), 16));
}

/* 32 floats -> their high parts and what is left of them. */
INLINE void split(__m512 x0, __m512 x1, __m512i *high, __m512i *low) {
  *high = (__m512i)_mm512_cvtne2ps_pbh(x1, x0);
  x0 = _mm512_sub_ps(x0, widen(_mm512_castsi512_si256(*high)));
  x1 = _mm512_sub_ps(x1, widen(_mm512_extracti64x4_epi64(*high, 1)));
  *low = (__m512i)_mm512_cvtne2ps_pbh(x1, x0);
}

/* Numbers `at` to `at` + `count` (multiples of 32) of row `row` of a left factor. */
INLINE void put_left(const float *x, long at, long count, long inner, int parts, long row, number *left) {
  number *group = left + row / 16 * (inner / 32) * left_step(parts);
  for (long i = 0; i < count; i += 32) {
    number *tile = group + (at + i) / 32 * left_step(parts) + row % 16 * 32;
    const __m512 x0 = _mm512_loadu_ps(x + i), x1 = _mm512_loadu_ps(x + i + 16);
    if (parts == 1) {
      _mm512_storeu_si512(tile, (__m512i)_mm512_cvtne2ps_pbh(x1, x0));
    } else {
      __m512i high, low;
      split(x0, x1, &high, &low);
      _mm512_storeu_si512(tile, high);
      _mm512_storeu_si512(tile + TILE, low);
    }
  }
}

INLINE void put_pixel(vec x, number *left) {
  _mm256_storeu_si256((__m256i *)left, (__m256i)_mm512_cvtneps_pbh(x));
}

/* COLUMNS rows of `inner` floats (a multiple of 32) -> a panel, in which they are columns. */
INLINE void put_right(const float *x, long inner, int parts, number *panel) {
  const long steps = inner / 32;
  for (long i = 0; i < 2 * steps; i++) { /* first group, then second */
    const float *from = x + i / steps * 16 * inner + i % steps * 32;
    number *tile = panel + i * right_step(parts);
    __m512i high[16], low[16];
    for (int j = 0; j < 16; j++)
      split(_mm512_loadu_ps(from + j * inner), _mm512_loadu_ps(from + j * inner + 16), high + j, low + j);
    transpose(high);
    for (int j = 0; j < 16; j++) _mm512_storeu_si512(tile + 32 * j, high[j]);
    if (parts < 3) continue;
    transpose(low);
    for (int j = 0; j < 16; j++) _mm512_storeu_si512(tile + TILE + 32 * j, low[j]);
  }
}

/* Rows `row` and `row` + 1 of a right factor of `width` columns, whose panels are `panel` numbers apart;
   null: zeros. */
INLINE void put_rows(const float *even, const float *odd, long width, long row, long panel, int parts,
                     number *right) {
  for (long i = 0; i < width; i += 16) {
    const __m512 x0 = even ? _mm512_loadu_ps(even + i) : _mm512_setzero_ps();
    const __m512 x1 = odd ? _mm512_loadu_ps(odd + i) : _mm512_setzero_ps();
    const __m256i high0 = (__m256i)_mm512_cvtneps_pbh(x0), high1 = (__m256i)_mm512_cvtneps_pbh(x1);
    number *tile = right + i / 16 * (panel / 2) + row / 32 * right_step(parts) + row % 32 * 16;
#define PAIRS(a, b) _mm512_or_si512(_mm512_cvtepu16_epi32(a), _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16))
    _mm512_storeu_si512(tile, PAIRS(high0, high1));
    if (parts == 3) {
      const __m256i low0 = (__m256i)_mm512_cvtneps_pbh(_mm512_sub_ps(x0, widen(high0)));
      const __m256i low1 = (__m256i)_mm512_cvtneps_pbh(_mm512_sub_ps(x1, widen(high1)));
      _mm512_storeu_si512(tile + TILE, PAIRS(low0, low1));
    }
#undef PAIRS
  }
}

/* Also makes the compiler finish all stores to memory: the intrinsics do not say that they read it. */
INLINE void zero_accumulators(void) {
  __asm__ volatile("" ::: "memory");
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

/* Adds to the accumulators (tiles 0 and 1, with `two` also 2 and 3 for 16 more rows) the product of left rows
   and a panel over `steps` tiles of the inner dimension. */
INLINE void accumulate(const number *lefts, const number *rights, long steps, int parts, int two) {
#define MULTIPLY               \
  {                            \
    _tile_dpbf16ps(0, 4, 6);   \
    _tile_dpbf16ps(1, 4, 7);   \
    if (two) {                 \
      _tile_dpbf16ps(2, 5, 6); \
      _tile_dpbf16ps(3, 5, 7); \
    }                          \
  }
#define LEFT(part)                                                     \
  {                                                                    \
    _tile_loadd(4, left + part * TILE, 64);                            \
    if (two) _tile_loadd(5, left + steps * to_left + part * TILE, 64); \
  }
#define RIGHT(part)                                             \
  {                                                             \
    _tile_loadd(6, right + part * TILE, 64);                    \
    _tile_loadd(7, right + steps * to_right + part * TILE, 64); \
  }
  const long to_left = left_step(parts), to_right = right_step(parts);
  for (long i = 0; i < steps; i++) {
    const number *left = lefts + i * to_left, *right = rights + i * to_right;
    for (long ahead = to_right; ahead < 2 * to_right; ahead += 32) { /* the hardware does not predict these */
      _mm_prefetch((const char *)(right + ahead), _MM_HINT_T0);
      _mm_prefetch((const char *)(right + steps * to_right + ahead), _MM_HINT_T0);
    }
    RIGHT(0)
    if (parts > 1) {
      LEFT(1) MULTIPLY
    }
    LEFT(0) MULTIPLY if (parts == 3) { RIGHT(1) MULTIPLY }
  }
#undef MULTIPLY
#undef LEFT
#undef RIGHT
}

INLINE void multiply_parts(const number *left, const number *right, long steps, int parts, long rows,
                           float *out, long stride) {
  zero_accumulators();
  if (rows > 16)
    accumulate(left, right, steps, parts, 1);
  else
    accumulate(left, right, steps, parts, 0);
  _tile_stored(0, out, stride * 4);
  _tile_stored(1, out + 16, stride * 4);
  if (rows > 16) {
    _tile_stored(2, out + 16 * stride, stride * 4);
    _tile_stored(3, out + 16 * stride + 16, stride * 4);
  }
}

/* out (32 x 32, rows `stride` floats apart) = left times a panel; of the rows, `rows` are needed. */
TARGET static void multiply(const number *left, const number *right, long inner, int parts, long rows,
                            float *out, long stride) {
  if (parts == 1)
    multiply_parts(left, right, inner / 32, 1, rows, out, stride);
  else if (parts == 2)
    multiply_parts(left, right, inner / 32, 2, rows, out, stride);
  else
    multiply_parts(left, right, inner / 32, 3, rows, out, stride);
}

INLINE void convolve_tiles(const number *const *left, long channels, long row, const number *right, int two,
                           int wide, float *out) {
  const long across = up(3 * channels, 32) / 32, stride = channels * sizeof(number), next = 3 * across * TILE;
  zero_accumulators();
  for (long i = 0; i < 3; i++)
    for (long j = 0; j < across; j++, right += TILE) {
      _tile_loadd(4, left[0] + i * row + j * 32, stride);
      _tile_loadd(6, right, 64);
      _tile_dpbf16ps(0, 4, 6);
      if (wide) {
        _tile_loadd(7, right + next, 64);
        _tile_dpbf16ps(1, 4, 7);
      }
      if (two) {
        _tile_loadd(5, left[1] + i * row + j * 32, stride);
        _tile_dpbf16ps(2, 5, 6);
        if (wide) _tile_dpbf16ps(3, 5, 7);
      }
    }
  _tile_stored(0, out, 128);
  if (wide) _tile_stored(1, out + 16, 128);
  if (two) _tile_stored(2, out + 512, 128);
  if (two && wide) _tile_stored(3, out + 528, 128);
}

/* One or two (`count`) groups of 16 pixels, each from where `left` points, times a panel of a convolution;
   `row` numbers from one row of the picture to the next. Only the first half of the columns unless `wide`. */
INLINE void convolve(const number *const *left, long count, long rows, long channels, long row,
                     const number *right, int wide, float *out) {
  (void)rows;
  if (count > 1 && wide)
    convolve_tiles(left, channels, row, right, 1, 1, out);
  else if (count > 1)
    convolve_tiles(left, channels, row, right, 1, 0, out);
  else
    convolve_tiles(left, channels, row, right, 0, wide, out);
}
