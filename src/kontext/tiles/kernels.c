/* What a transformer's step and a decoder are made of, on processors that multiply in tiles (Intel AMX): linear
   layers, attention, convolutions.

   A tile holds 16 rows of 64 bytes. One instruction multiplies 16 x 32 by 32 x 16 bfloat16 numbers and adds
   to 16 x 16 floats, sixteen times as many products in a cycle as float32 arithmetic has. A float32 number is
   the sum of two bfloat16 ones to 16 bits, x = high(x) + low(x), so that

       x w = high(x) high(w) + low(x) high(w) + high(x) low(w)

   is float32's product to some 1e-5 of its size. `parts` says how many of these terms are taken: 3; 2 where
   the right factor is bfloat16 to begin with, as published weights are, and has no low part; 1 for bfloat16's
   product. What surrounds a product in the network (norms before; GELU, or gate and residual, after; rotation
   and softmax of attention) happens while its numbers are in the cache.

   Everything is row-major float32 outside. Inside, a factor lies in tiles: for every group of 16 rows (left)
   or columns (right), for every 32 of the inner dimension, a tile of the high parts and, where they are used,
   one of the low. A right tile has the inner dimension in pairs: [16 pairs][16 columns][2].

   Threads are those of the caller's OpenMP (`parallel` is GOMP_parallel): two pools would fight for the
   cores. */

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)

#include <immintrin.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TILED __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")))
#define INLINE TILED static inline __attribute__((always_inline))

typedef uint16_t bf16;
typedef void (*parallel_t)(void (*work)(void *), void *data, unsigned threads, unsigned flags);

enum {
  TILE = 512,         /* numbers of one tile of bfloat16 */
  BLOCK = 1 << 18,    /* bytes of the left factor that stay in the second cache while the right one passes */
  CHUNK = 400 * 1024, /* bytes of the right factor likewise */
};

static const float EPSILON = 1e-6f;

static long up(long value, long to) { return (value + to - 1) / to * to; }
static long least(long a, long b) { return a < b ? a : b; }
/* Numbers from one tile of the inner dimension to the next. */
static long left_step(int parts) { return parts == 1 ? TILE : 2 * TILE; }
static long right_step(int parts) { return parts == 3 ? 2 * TILE : TILE; }

TILED static void set_up_tiles(void) {
  struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } all = {.palette = 1};
  for (int i = 0; i < 8; i++) all.bytes[i] = 64, all.rows[i] = 16;
  _tile_loadconfig(&all);
}

/* ---- numbers ---------------------------------------------------------------------------------------- */

INLINE __mmask16 first(long count) { return count >= 16 ? 0xffff : count <= 0 ? 0 : (1u << count) - 1; }

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

/* e^x to 2e-7 of its size: 2^n e^r with |r| <= ln 2 / 2, e^r by its series. */
INLINE __m512 exponential(__m512 x) {
  __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  const float series[] = {1 / 720.f, 1 / 120.f, 1 / 24.f, 1 / 6.f, 0.5f, 1, 1};
  __m512 sum = _mm512_set1_ps(series[0]);
  for (int i = 1; i < 7; i++) sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(series[i]));
  return _mm512_scalef_ps(sum, n);
}

/* GELU in its approximation by tanh: x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
INLINE __m512 gelu(__m512 x) {
  __m512 cube = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044715f), _mm512_set1_ps(1));
  __m512 inner = _mm512_mul_ps(_mm512_mul_ps(x, cube), _mm512_set1_ps(-1.5957691216f));
  return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1), exponential(inner)));
}

/* ---- tiles ------------------------------------------------------------------------------------------ */

/* A row of `inner` floats (a multiple of 32, readable) -> row `row` of left tiles. */
INLINE void put_left(const float *x, long inner, int parts, long row, bf16 *tiles) {
  for (long i = 0; i < inner; i += 32) {
    bf16 *tile = tiles + i / 32 * left_step(parts) + row * 32;
    __m512 x0 = _mm512_loadu_ps(x + i), x1 = _mm512_loadu_ps(x + i + 16);
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

/* 16 x 16 numbers of 32 bits, rows to columns. */
INLINE void transpose(__m512i rows[16]) {
  __m512i pairs[16], fours[16];
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    __m512i a = _mm512_shuffle_i32x4(fours[i], fours[i + 4], 0x44);
    __m512i b = _mm512_shuffle_i32x4(fours[i], fours[i + 4], 0xee);
    __m512i c = _mm512_shuffle_i32x4(fours[i + 8], fours[i + 12], 0x44);
    __m512i d = _mm512_shuffle_i32x4(fours[i + 8], fours[i + 12], 0xee);
    rows[i] = _mm512_shuffle_i32x4(a, c, 0x88);
    rows[i + 4] = _mm512_shuffle_i32x4(a, c, 0xdd);
    rows[i + 8] = _mm512_shuffle_i32x4(b, d, 0x88);
    rows[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

/* 16 rows of `inner` floats (a multiple of 32) -> a group of right tiles, in which they are columns. */
INLINE void put_right(const float *x, long inner, int parts, bf16 *tiles) {
  for (long i = 0; i < inner; i += 32) {
    bf16 *tile = tiles + i / 32 * right_step(parts);
    __m512i high[16], low[16];
    for (int j = 0; j < 16; j++) {
      const float *row = x + j * inner + i;
      split(_mm512_loadu_ps(row), _mm512_loadu_ps(row + 16), high + j, low + j);
    }
    transpose(high);
    for (int j = 0; j < 16; j++) _mm512_storeu_si512(tile + 32 * j, high[j]);
    if (parts < 3) continue;
    transpose(low);
    for (int j = 0; j < 16; j++) _mm512_storeu_si512(tile + TILE + 32 * j, low[j]);
  }
}

/* Adds to the accumulators (tiles 0 and 1, with `two` also 2 and 3 for 16 more rows) the product of left rows
   and 32 right columns over `steps` tiles of the inner dimension. The second group of 16 lies behind the
   first. */
INLINE void accumulate(const bf16 *lefts, const bf16 *rights, long steps, int parts, int two) {
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
    const bf16 *left = lefts + i * to_left, *right = rights + i * to_right;
    for (long ahead = to_right; ahead < 2 * to_right;
         ahead += 32) { /* the processor does not see these coming */
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

/* out (32 x 32, rows `stride` floats apart) = left rows times right columns; of the rows, `rows` are wanted.
 */
INLINE void multiply_parts(const bf16 *left, const bf16 *right, long steps, int parts, long rows, float *out,
                           long stride) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
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

TILED static void multiply(const bf16 *left, const bf16 *right, long steps, int parts, long rows, float *out,
                           long stride) {
  if (parts == 1)
    multiply_parts(left, right, steps, 1, rows, out, stride);
  else if (parts == 2)
    multiply_parts(left, right, steps, 2, rows, out, stride);
  else
    multiply_parts(left, right, steps, 3, rows, out, stride);
}

/* A piece of work in `shares` shares that threads may take in any order. */
typedef struct {
  int kind; /* PRODUCT, ATTENTION or CONVOLUTION: of what this is the beginning */
  int shares, taken, done, failed;
} job_t;

enum { PRODUCT, ATTENTION, CONVOLUTION };

/* ---- a linear layer and what surrounds it ----------------------------------------------------------- */

/* Bytes of the tiles of weights (n, k). */
long tiles_bytes(long n, long k, int parts) {
  return up(n, 32) / 16 * (up(k, 32) / 32) * right_step(parts) * sizeof(bf16);
}

/* Weights (n, k) -> right tiles of their transpose. 1: no memory. */
TILED int tiles_of(const float *weights, long n, long k, int parts, bf16 *tiles) {
  const long inner = up(k, 32);
  float *rows = malloc(16 * inner * sizeof(float));
  if (!rows) return 1;
  for (long i = 0; i < up(n, 32); i += 16) {
    memset(rows, 0, 16 * inner * sizeof(float));
    for (long j = i; j < least(i + 16, n); j++)
      memcpy(rows + (j - i) * inner, weights + j * k, k * sizeof(float));
    put_right(rows, inner, parts, tiles + i / 16 * (inner / 32) * right_step(parts));
  }
  free(rows);
  return 0;
}

/* out = x W^T + bias for `items` pictures of `rows` rows. x and out have their own distances, in floats, from
   row to row and from item to item. */
typedef struct {
  job_t job;
  int parts;
  const float *x;
  long x_row, x_item;
  const float *shift,
      *factor; /* rows are normed to mean 0 and variance 1, then shift + factor row; or null */
  long shift_item, factor_item;
  const bf16 *weights; /* right tiles of (columns, inner) */
  const float *bias;   /* or null */
  float *heads; /* where the first `head_columns` go: for every `head_width` columns a matrix of its own */
  long heads_step, heads_item, head_width, head_columns;
  float *out; /* where the others go, */
  long out_row, out_item;
  long gelu;         /* through GELU, */
  const float *gate; /* or out += gate (x W^T + bias); or null */
  long gate_item;
  long items, rows, columns, inner;
} product_t;

INLINE void norm(const float *x, const float *shift, const float *factor, long width, float *out) {
  __m512 sum = _mm512_setzero_ps(), squares = sum;
  for (long i = 0; i < width; i += 16)
    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(first(width - i), x + i));
  const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width);
  for (long i = 0; i < width; i += 16) {
    __m512 off = _mm512_maskz_sub_ps(first(width - i), _mm512_maskz_loadu_ps(first(width - i), x + i), mean);
    squares = _mm512_fmadd_ps(off, off, squares);
  }
  const float deviation = __builtin_sqrtf(_mm512_reduce_add_ps(squares) / width + EPSILON);
  const __m512 by = _mm512_set1_ps(1 / deviation);
  for (long i = 0; i < width; i += 16) {
    __mmask16 mask = first(width - i);
    __m512 normed = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), mean), by);
    normed = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, factor + i), normed,
                             _mm512_maskz_loadu_ps(mask, shift + i));
    _mm512_mask_storeu_ps(out + i, mask, normed);
  }
}

/* `count` rows of one item from `from` on -> left tiles. `row` has room for one, and zeros behind it. */
TILED static void gather(const product_t *p, long item, long from, long count, float *row, bf16 *tiles) {
  const long inner = up(p->inner, 32), group = inner / 32 * left_step(p->parts);
  memset(tiles + count / 16 * group, 0, count % 16 ? group * sizeof(bf16) : 0);
  for (long i = 0; i < count; i++) {
    const float *x = p->x + item * p->x_item + (from + i) * p->x_row;
    if (p->shift)
      norm(x, p->shift + item * p->shift_item, p->factor + item * p->factor_item, p->inner, row);
    else if (inner != p->inner)
      memcpy(row, x, p->inner * sizeof(float));
    put_left(p->shift || inner != p->inner ? row : x, inner, p->parts, i % 16, tiles + i / 16 * group);
  }
}

/* 32 x 32 results -> their place, with all that happens to them on the way. */
INLINE void deliver(const product_t *p, const float *results, long item, long from, long count, long column) {
  const int to_head = column < p->head_columns;
  const long row = to_head ? p->head_width : p->out_row;
  float *out = to_head ? p->heads + item * p->heads_item + column / p->head_width * p->heads_step +
                             column % p->head_width
                       : p->out + item * p->out_item + column - p->head_columns;
  for (long half = 0; half < 32 && column + half < p->columns; half += 16) {
    const __mmask16 mask = first(p->columns - column - half);
    const __m512 bias = p->bias ? _mm512_maskz_loadu_ps(mask, p->bias + column + half) : _mm512_setzero_ps();
    const __m512 gate =
        p->gate ? _mm512_maskz_loadu_ps(mask, p->gate + item * p->gate_item + column + half) : bias;
    for (long i = 0; i < count; i++) {
      float *at = out + (from + i) * row + half;
      __m512 y = _mm512_add_ps(_mm512_load_ps(results + i * 32 + half), bias);
      if (p->gelu && !to_head) y = gelu(y);
      if (p->gate) y = _mm512_fmadd_ps(gate, y, _mm512_maskz_loadu_ps(mask, at));
      _mm512_mask_storeu_ps(at, mask, y);
    }
  }
}

/* Rows `from` to `to` of one item, columns `left` to `right` (multiples of 32). */
TILED static void multiply_block(const product_t *p, long item, long from, long to, long left, long right,
                                 float *row, bf16 *tiles) {
  const long steps = up(p->inner, 32) / 32;
  const long to_left = steps * left_step(p->parts), to_right = steps * right_step(p->parts);
  const long chunk = up(CHUNK / (to_right * 2) * 16 + 1, 32);
  float results[32 * 32] __attribute__((aligned(64)));
  gather(p, item, from, to - from, row, tiles);
  for (long begin = left; begin < right; begin += chunk)
    for (long i = from; i < to; i += 32)
      for (long j = begin; j < least(right, begin + chunk); j += 32) {
        multiply(tiles + (i - from) / 16 * to_left, p->weights + j / 16 * to_right, steps, p->parts, to - i,
                 results, 32);
        deliver(p, results, item, i, least(32, to - i), j);
      }
}

TILED static int product_share(const product_t *p, long share, long shares) {
  const long inner = up(p->inner, 32), row_bytes = inner / 16 * left_step(p->parts) / 16;
  const long blocks = up(p->rows, 32) / 32, columns = up(p->columns, 32) / 32;
  /* The rows are shared where they divide well; else the columns, and every thread gathers all rows. */
  const int by_rows = p->items * blocks >= 6 * shares || (p->items == 1 && p->rows % (32 * shares) == 0);
  const long height = by_rows ? up(least(p->rows, BLOCK / row_bytes), 32) : up(p->rows, 32);
  const long begin = by_rows ? p->items * blocks * share / shares : 0;
  const long end = by_rows ? p->items * blocks * (share + 1) / shares : p->items * blocks;
  const long left = by_rows ? 0 : columns * share / shares * 32;
  const long right = by_rows ? columns * 32 : columns * (share + 1) / shares * 32;
  if (begin == end || left == right) return 0; /* more threads than work */
  float *row = aligned_alloc(64, up(inner * sizeof(float) + height * row_bytes, 64));
  if (!row) return 1;
  bf16 *tiles = (bf16 *)(row + inner);
  memset(row, 0, inner * sizeof(float));
  for (long at = begin; at < end;) {
    const long item = at / blocks, from = at % blocks * 32;
    const long count = least(least(end - at, blocks - at % blocks), height / 32);
    multiply_block(p, item, from, least(p->rows, from + count * 32), left, right, row, tiles);
    at += count;
  }
  free(row);
  return 0;
}

/* ---- attention -------------------------------------------------------------------------------------- */

/* Softmax attention of `items` sequences of `rows` rows, their queries, keys and values as a linear layer
   left them: queries and keys are normed by their root mean square and turned here. Keys and values of `seen`
   further rows come ready. Rows `start` to `stop` ask. */
typedef struct {
  job_t job;
  int parts;
  const float *qkv; /* (items, 3, heads, rows, width) */
  long qkv_step, qkv_item;
  const float *query_scale, *key_scale; /* (2, width): of the rows before `change`, of the others */
  long change;
  const float *rotary;        /* (rows, width / 2, 2): cosines and sines */
  const float *keys, *values; /* (items, heads, seen, width); or null */
  long seen_row, seen_head, keys_item, values_item;
  float *out; /* (items, rows, heads * width) */
  long out_row, out_item;
  long items, heads, width, rows, seen, start, stop; /* width: of one head, a multiple of 32 */
} attention_t;

/* Root-mean-square norm, scale, rotation by the row's angles. */
INLINE void norm_and_turn(const float *x, const float *scale, const float *angles, long width, float by,
                          float *out) {
  __m512 squares = _mm512_setzero_ps();
  for (long i = 0; i < width; i += 16) {
    __m512 part = _mm512_loadu_ps(x + i);
    squares = _mm512_fmadd_ps(part, part, squares);
  }
  const __m512 norm = _mm512_set1_ps(by / __builtin_sqrtf(_mm512_reduce_add_ps(squares) / width + EPSILON));
  for (long i = 0; i < width; i += 16) {
    __m512 y = _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i), norm), _mm512_loadu_ps(scale + i));
    __m512 angle = _mm512_loadu_ps(angles + i), swapped = _mm512_permute_ps(y, 0xb1);
    swapped = _mm512_mul_ps(swapped, _mm512_movehdup_ps(angle));
    _mm512_storeu_ps(out + i, _mm512_fmaddsub_ps(y, _mm512_moveldup_ps(angle), swapped));
  }
}

/* Two rows of values -> a row of pairs in right tiles, whose columns are the width. */
INLINE void put_values(const float *even, const float *odd, long width, long row, long group, int parts,
                       bf16 *tiles) {
  for (long i = 0; i < width; i += 16) {
    __m512 x0 = even ? _mm512_loadu_ps(even + i) : _mm512_setzero_ps(),
           x1 = odd ? _mm512_loadu_ps(odd + i) : _mm512_setzero_ps();
    __m256i high0 = (__m256i)_mm512_cvtneps_pbh(x0), high1 = (__m256i)_mm512_cvtneps_pbh(x1);
    bf16 *tile = tiles + i / 16 * group + row / 32 * right_step(parts) + row % 32 * 16;
#define PAIRS(a, b) _mm512_or_si512(_mm512_cvtepu16_epi32(a), _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16))
    _mm512_storeu_si512(tile, PAIRS(high0, high1));
    if (parts == 3) {
      __m256i low0 = (__m256i)_mm512_cvtneps_pbh(_mm512_sub_ps(x0, widen(high0)));
      __m256i low1 = (__m256i)_mm512_cvtneps_pbh(_mm512_sub_ps(x1, widen(high1)));
      _mm512_storeu_si512(tile + TILE, PAIRS(low0, low1));
    }
#undef PAIRS
  }
}

/* Row i of the queries (0), keys (1) or values (2) of a head. */
INLINE const float *own_row(const attention_t *p, int kind, long item, long head, long i) {
  return p->qkv + item * p->qkv_item + (kind * p->heads + head) * p->qkv_step + i * p->width;
}

INLINE const float *value_row(const attention_t *p, long item, long head, long i) {
  return i < p->rows ? own_row(p, 2, item, head, i)
                     : p->values + item * p->values_item + head * p->seen_head + (i - p->rows) * p->seen_row;
}

/* Keys and values of one head -> right tiles of the transposed keys and of the values. `row` has room for 16.
 */
TILED static void gather_head(const attention_t *p, long item, long head, float *row, bf16 *keys,
                              bf16 *values) {
  const long all = p->rows + p->seen, steps = up(all, 32) / 32, step = right_step(p->parts), w = p->width;
  for (long i = 0; i < up(all, 32); i += 16) {
    for (long j = i; j < i + 16; j++) {
      float *to = row + (j - i) * w;
      const float *seen = p->keys + item * p->keys_item + head * p->seen_head + (j - p->rows) * p->seen_row;
      if (j >= all)
        memset(to, 0, w * sizeof(float));
      else if (j >= p->rows)
        memcpy(to, seen, w * sizeof(float));
      else
        norm_and_turn(own_row(p, 1, item, head, j), p->key_scale + (j >= p->change) * w, p->rotary + j * w, w,
                      1, to);
    }
    put_right(row, w, p->parts, keys + i / 16 * (w / 32) * step);
  }
  for (long i = 0; i < up(all, 32); i += 2)
    put_values(i < all ? value_row(p, item, head, i) : 0, i + 1 < all ? value_row(p, item, head, i + 1) : 0,
               w, i, steps * step, p->parts, values);
}

/* A row of `count` scores -> e^(score - largest) as row `row` of left tiles; returns their sum. */
INLINE float soften(float *scores, long count, int parts, long row, bf16 *tiles) {
  __m512 largest = _mm512_set1_ps(-__builtin_inff()), sum = _mm512_setzero_ps();
  for (long i = 0; i < count; i += 16)
    largest = _mm512_mask_max_ps(largest, first(count - i), largest, _mm512_loadu_ps(scores + i));
  largest = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
  for (long i = 0; i < count; i += 32) {
    float pair[32];
    for (int half = 0; half < 32; half += 16) {
      __m512 e = exponential(_mm512_sub_ps(_mm512_loadu_ps(scores + i + half), largest));
      e = _mm512_maskz_mov_ps(first(count - i - half), e);
      sum = _mm512_add_ps(sum, e);
      _mm512_storeu_ps(pair + half, e);
    }
    put_left(pair, 32, parts, row, tiles + i / 32 * left_step(parts));
  }
  return _mm512_reduce_add_ps(sum);
}

/* 32 queries of one head, from row `from` on: out = softmax(queries keys^T / sqrt(width)) values. */
TILED static void attend_block(const attention_t *p, long item, long head, long from, float *row,
                               float *scores, bf16 *queries, bf16 *shares, const bf16 *keys,
                               const bf16 *values) {
  const long all = p->rows + p->seen, stride = up(all, 32), count = least(32, p->stop - from), w = p->width;
  const long to_left = left_step(p->parts), to_right = right_step(p->parts), across = w / 32,
             along = stride / 32;
  float sums[32], results[32 * 32] __attribute__((aligned(64)));
  for (long i = 0; i < count; i++) {
    const float *scale = p->query_scale + (from + i >= p->change) * w, *angles = p->rotary + (from + i) * w;
    norm_and_turn(own_row(p, 0, item, head, from + i), scale, angles, w, 1 / __builtin_sqrtf(w), row);
    put_left(row, w, p->parts, i % 16, queries + i / 16 * across * to_left);
  }
  for (long j = 0; j < all; j += 32)
    multiply(queries, keys + j / 16 * across * to_right, across, p->parts, count, scores + j, stride);
  for (long i = 0; i < count; i++)
    sums[i] = soften(scores + i * stride, all, p->parts, i % 16, shares + i / 16 * along * to_left);
  for (long j = 0; j < w; j += 32) {
    multiply(shares, values + j / 16 * along * to_right, along, p->parts, count, results, 32);
    for (long i = 0; i < count; i++) {
      float *out = p->out + item * p->out_item + (from + i) * p->out_row + head * w + j;
      const __m512 by = _mm512_set1_ps(1 / sums[i]);
      _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_load_ps(results + i * 32), by));
      _mm512_storeu_ps(out + 16, _mm512_mul_ps(_mm512_load_ps(results + i * 32 + 16), by));
    }
  }
}

TILED static int attention_share(const attention_t *p, long share, long count) {
  const long all = up(p->rows + p->seen, 32), blocks = up(p->stop - p->start, 32) / 32;
  const long units = p->items * p->heads * blocks;
  const long right = all / 16 * (p->width / 32) * right_step(p->parts); /* of the keys, and of the values */
  const long queries_size = 2 * (p->width / 32) * left_step(p->parts);
  const long left = queries_size + 2 * (all / 32) * left_step(p->parts);
  const long floats = 16 * p->width + 32 * all;
  float *row = aligned_alloc(64, up(floats * sizeof(float) + (2 * right + left) * sizeof(bf16), 64));
  if (!row) return 1;
  float *scores = row + 16 * p->width;
  bf16 *keys = (bf16 *)(scores + 32 * all), *values = keys + right, *queries = values + right;
  bf16 *shares = queries + queries_size;
  memset(queries, 0, left * sizeof(bf16));
  long gathered = -1;
  for (long unit = units * share / count; unit < units * (share + 1) / count; unit++) {
    const long pair = unit / blocks, item = pair / p->heads, head = pair % p->heads;
    if (pair != gathered) gather_head(p, item, head, row, keys, values);
    gathered = pair;
    attend_block(p, item, head, p->start + unit % blocks * 32, row, scores, queries, shares, keys, values);
  }
  free(row);
  return 0;
}

/* ---- a convolution and what surrounds it -------------------------------------------------------------- */

/* out = 3 x 3 convolution of silu(group norm of x), or of x itself, + bias + residual. Pictures lie as
   (height, width, channels); outside of them is zero. Channels are multiples of 16. */
typedef struct {
  job_t job;
  int parts; /* 1 */
  const float *x;
  long height, width, channels;         /* of the output; x is as large, or half as large on each side: */
  long enlarge;                         /* then every pixel counts four times */
  const float *norm_weight, *norm_bias; /* or null: no norm, no silu */
  long groups;
  const double *sums; /* (shares, channels, 2): of x and its squares over `counted` pixels, */
  long counted;
  const float *mean, *variance; /* or, where sums is null, known for each channel */
  const bf16 *weights;          /* right tiles of (columns, 3, 3 channels, each third filled up to 32) */
  const float *bias, *residual; /* residual: as out, or null */
  float *out;
  double *out_sums; /* (shares, columns, 2): of out, or null */
  long columns;
} convolution_t;

static const long BAND = 1 << 18; /* bytes of input that are made ready at a time */

/* Norm and silu of a row of pixels, as bfloat16: silu(factor x + shift). */
INLINE void put_pixels(const convolution_t *p, const float *x, const float *factor, const float *shift,
                       long width, bf16 *out) {
  const long c = p->channels;
  for (long i = 0; i < width; i++) {
    const float *pixel = x + (p->enlarge ? i / 2 : i) * c;
    for (long j = 0; j < c; j += 16) {
      __m512 y = _mm512_loadu_ps(pixel + j);
      if (p->norm_weight) {
        y = _mm512_fmadd_ps(y, _mm512_loadu_ps(factor + j), _mm512_loadu_ps(shift + j));
        __m512 below = _mm512_add_ps(exponential(_mm512_sub_ps(_mm512_setzero_ps(), y)), _mm512_set1_ps(1));
        y = _mm512_div_ps(y, below);
      }
      _mm256_storeu_si256((__m256i *)(out + i * c + j), (__m256i)_mm512_cvtneps_pbh(y));
    }
  }
}

/* The norm as factor and shift of each channel. */
static void norm_of(const convolution_t *p, float *factor, float *shift) {
  const long each = p->norm_weight ? p->channels / p->groups : 0;
  for (long group = 0; each && group < p->groups; group++) {
    double sum = 0, squares = 0;
    for (long share = 0; p->sums && share < p->job.shares; share++)
      for (long i = group * each; i < (group + 1) * each; i++) {
        sum += p->sums[(share * p->channels + i) * 2];
        squares += p->sums[(share * p->channels + i) * 2 + 1];
      }
    for (long i = group * each; i < (group + 1) * each; i++) {
      const double mean = p->sums ? sum / (p->counted * each) : p->mean[i];
      const double variance = p->sums ? squares / (p->counted * each) - mean * mean : p->variance[i];
      factor[i] = p->norm_weight[i] / __builtin_sqrt((variance > 0 ? variance : 0) + EPSILON);
      shift[i] = p->norm_bias[i] - mean * factor[i];
    }
  }
}

/* 16 or 32 pixels, 16 each from where `left` point, times 16 or 32 columns. */
INLINE void convolve(const convolution_t *p, const bf16 *const left[2], long row, const bf16 *right, int two,
                     int wide, float *out) {
  const long across = up(3 * p->channels, 32) / 32, stride = p->channels * sizeof(bf16),
             next = 3 * across * TILE;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
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

/* `count` results of one row from pixel `x` on, columns from `column` on -> out, and their sums. */
INLINE void deliver_pixels(const convolution_t *p, const float *results, long y, long x, long count,
                           long column, double *sums) {
  for (long half = 0; half < 32 && column + half < p->columns; half += 16) {
    const __mmask16 mask = first(p->columns - column - half);
    const __m512 bias = _mm512_maskz_loadu_ps(mask, p->bias + column + half);
    __m512 sum = _mm512_setzero_ps(), squares = sum;
    for (long i = 0; i < count; i++) {
      const long at = (y * p->width + x + i) * p->columns + column + half;
      __m512 value = _mm512_add_ps(_mm512_load_ps(results + i * 32 + half), bias);
      if (p->residual) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, p->residual + at));
      _mm512_mask_storeu_ps(p->out + at, mask, value);
      value = _mm512_maskz_mov_ps(mask, value);
      sum = _mm512_add_ps(sum, value);
      squares = _mm512_fmadd_ps(value, value, squares);
    }
    float each[2][16];
    _mm512_storeu_ps(each[0], sum);
    _mm512_storeu_ps(each[1], squares);
    for (long i = 0; p->out_sums && i < least(16, p->columns - column - half); i++) {
      sums[(column + half + i) * 2] += each[0][i];
      sums[(column + half + i) * 2 + 1] += each[1][i];
    }
  }
}

TILED static int convolution_share(const convolution_t *p, long share, long shares) {
  const long c = p->channels, begin = p->height * share / shares, end = p->height * (share + 1) / shares;
  const long blocks = up(p->width, 16) / 16,
             row = (blocks * 16 + 4) * c; /* a pixel before, and three behind */
  const long band = least(end - begin, BAND / (row * (long)sizeof(bf16)) + 1);
  const long steps = 3 * (up(3 * c, 32) / 32) * TILE;
  float results[32 * 32] __attribute__((aligned(64)));
  double *sums = p->out_sums ? p->out_sums + share * p->columns * 2 : 0;
  if (sums) memset(sums, 0, p->columns * 2 * sizeof(double));
  if (begin == end) return 0;
  float *factor = aligned_alloc(64, up(2 * c * sizeof(float) + (band + 2) * row * sizeof(bf16) + 64, 64));
  if (!factor) return 1;
  float *shift = factor + c;
  bf16 *ready = (bf16 *)(shift + c);
  norm_of(p, factor, shift);
  for (long top = begin; top < end; top += band) {
    const long bottom = least(end, top + band);
    memset(ready, 0, (band + 2) * row * sizeof(bf16));
    for (long y = top - 1; y <= bottom; y++)
      if (y >= 0 && y < p->height)
        put_pixels(p, p->x + (p->enlarge ? y / 2 * (p->width / 2) : y * p->width) * c, factor, shift,
                   p->width, ready + (y - top + 1) * row + c);
    for (long column = 0; column < p->columns; column += 32) {
      const int wide = column + 16 < p->columns;
      for (long block = 0; block < (bottom - top) * blocks; block += 2) {
        const int two = block + 1 < (bottom - top) * blocks;
        const bf16 *left[2];
        for (int i = 0; i < 2; i++)
          left[i] = ready + (block + i) / blocks * row + (block + i) % blocks * 16 * c;
        const bf16 *right = p->weights + column / 16 * steps;
        if (two && wide)
          convolve(p, left, row, right, 1, 1, results);
        else if (two)
          convolve(p, left, row, right, 1, 0, results);
        else
          convolve(p, left, row, right, 0, wide, results);
        for (int i = 0; i < 1 + two; i++) {
          const long x = (block + i) % blocks * 16;
          deliver_pixels(p, results + i * 512, top + (block + i) / blocks, x, least(16, p->width - x), column,
                         sums);
        }
      }
    }
  }
  free(factor);
  return 0;
}

/* ---- jobs one after the other ----------------------------------------------------------------------- */

typedef struct {
  job_t **jobs;
  long count;
} list_t;

/* What every thread does. There may be fewer threads than shares: OpenMP gives as many as it likes. */
TILED static void work(void *data) {
  const list_t *list = data;
  set_up_tiles();
  for (long i = 0; i < list->count; i++) {
    job_t *job = list->jobs[i];
    for (long share; (share = __atomic_fetch_add(&job->taken, 1, __ATOMIC_RELAXED)) < job->shares;) {
      int failed;
      if (job->kind == PRODUCT)
        failed = product_share((product_t *)job, share, job->shares);
      else if (job->kind == ATTENTION)
        failed = attention_share((attention_t *)job, share, job->shares);
      else
        failed = convolution_share((convolution_t *)job, share, job->shares);
      if (failed) job->failed = 1;
      __atomic_fetch_add(&job->done, 1, __ATOMIC_RELEASE);
    }
    for (long spins = 0; __atomic_load_n(&job->done, __ATOMIC_ACQUIRE) < job->shares; spins++) {
      if (spins < 10000)
        _mm_pause();
      else
        sched_yield();
    }
  }
  _tile_release();
}

/* Size of a job of this kind: callers with another layout were made for other kernels. */
long job_bytes(int kind) {
  return kind == PRODUCT ? sizeof(product_t) : kind == ATTENTION ? sizeof(attention_t) : sizeof(convolution_t);
}

/* Each job in `threads` shares, when the one before it is done. 1: there was no memory. */
int run(job_t **jobs, long count, int threads, parallel_t parallel) {
  list_t list = {jobs, count};
  int failed = 0;
  for (long i = 0; i < count; i++) {
    jobs[i]->shares = threads;
    jobs[i]->taken = jobs[i]->done = jobs[i]->failed = 0;
  }
  if (threads == 1)
    work(&list);
  else
    parallel(work, &list, threads, 0);
  for (long i = 0; i < count; i++) failed |= jobs[i]->failed;
  return failed;
}

#endif
