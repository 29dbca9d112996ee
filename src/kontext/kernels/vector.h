/* Vectors of LANES floats (16, 8 or 4) by the compiler's vector extensions: one text for every instruction
   set. The file that includes this defines LANES and TARGET, the attribute that selects the instructions. */

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define INLINE TARGET static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int ivec __attribute__((vector_size(4 * LANES)));
typedef unsigned uvec __attribute__((vector_size(4 * LANES)));
typedef float unaligned_vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t unaligned_half __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

static const float EPSILON = 1e-6f;

INLINE vec load(const float *x) { return *(const unaligned_vec *)x; }
INLINE void store(float *x, vec value) { *(unaligned_vec *)x = value; }
INLINE vec splat(float x) { return x - (vec){0}; }

/* Numbers `i` to `i` + LANES of an array of bfloat16 or float32. */
INLINE vec load_number(const void *x, long i, int bfloat16) {
  if (!bfloat16) return load((const float *)x + i);
  const unaligned_half half = *(const unaligned_half *)((const uint16_t *)x + i);
  return (vec)(__builtin_convertvector(half, uvec) << 16);
}

INLINE void store_number(void *x, long i, vec value, int bfloat16) {
  if (bfloat16) { /* to nearest, ties to even */
#ifdef DOT
    _mm256_storeu_si256((__m256i *)((uint16_t *)x + i), (__m256i)_mm512_cvtneps_pbh((__m512)value));
    return;
#endif
    const uvec bits = (uvec)value, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *(unaligned_half *)((uint16_t *)x + i) = __builtin_convertvector(rounded, unaligned_half);
  } else {
    store((float *)x + i, value);
  }
}

/* The first `count` numbers, zeros behind them. */
INLINE vec load_first(const float *x, long count) {
  if (count >= LANES) return load(x);
  float lanes[LANES] = {0};
  if (count > 0) memcpy(lanes, x, count * sizeof(float));
  return load(lanes);
}

INLINE void store_first(float *x, vec value, long count) {
  if (count >= LANES) {
    store(x, value);
  } else if (count > 0) {
    float lanes[LANES];
    store(lanes, value);
    memcpy(x, lanes, count * sizeof(float));
  }
}

INLINE vec keep_first(vec x, long count) {
  float lanes[LANES];
  if (count >= LANES) return x;
  store(lanes, x);
  return load_first(lanes, count);
}

/* a > b ? a : b */
INLINE vec larger(vec a, vec b) {
#if LANES == 16
  return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
  return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  const ivec first = a > b;
  return (vec)((first & (ivec)a) | (~first & (ivec)b));
#endif
}

INLINE vec smaller(vec a, vec b) {
#if LANES == 16
  return (vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif LANES == 8
  return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return -larger(-a, -b);
#endif
}

INLINE float largest_of(vec x) {
  float lanes[LANES];
  store(lanes, x);
  float largest = lanes[0];
  for (int i = 1; i < LANES; i++) largest = lanes[i] > largest ? lanes[i] : largest;
  return largest;
}

#ifdef __clang__
#define SHUFFLE(x, ...) __builtin_shufflevector(x, x, __VA_ARGS__)
#else
#define SHUFFLE(x, ...) __builtin_shuffle(x, (ivec){__VA_ARGS__})
#endif
#if LANES == 16
#define SWAPPED 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14
#define EVEN 0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12, 12, 14, 14
#define ODD 1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15
#define SIGNS -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1
#define FOLD_8 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7
#define FOLD_4 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11
#define FOLD_2 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13
#elif LANES == 8
#define SWAPPED 1, 0, 3, 2, 5, 4, 7, 6
#define EVEN 0, 0, 2, 2, 4, 4, 6, 6
#define ODD 1, 1, 3, 3, 5, 5, 7, 7
#define SIGNS -1, 1, -1, 1, -1, 1, -1, 1
#define FOLD_4 4, 5, 6, 7, 0, 1, 2, 3
#define FOLD_2 2, 3, 0, 1, 6, 7, 4, 5
#else
#define SWAPPED 1, 0, 3, 2
#define EVEN 0, 0, 2, 2
#define ODD 1, 1, 3, 3
#define SIGNS -1, 1, -1, 1
#define FOLD_2 2, 3, 0, 1
#endif

INLINE float sum_of(vec x) {
#if LANES == 16
  x = x + SHUFFLE(x, FOLD_8);
#endif
#if LANES >= 8
  x = x + SHUFFLE(x, FOLD_4);
#endif
  x = x + SHUFFLE(x, FOLD_2);
  return x[0] + x[1];
}

/* Pairs of numbers turned by angles given as (cosine, sine), or back. */
INLINE vec rotate(vec x, vec angles) {
  const vec cosines = SHUFFLE(angles, EVEN), sines = SHUFFLE(angles, ODD) * (vec){SIGNS};
  return x * cosines + SHUFFLE(x, SWAPPED) * sines;
}

INLINE vec rotate_back(vec x, vec angles) {
  const vec cosines = SHUFFLE(angles, EVEN), sines = SHUFFLE(angles, ODD) * (vec){SIGNS};
  return x * cosines - SHUFFLE(x, SWAPPED) * sines;
}

/* A row times `by` times `scale`, turned by the row's angles. */
INLINE void scale_and_rotate(const float *x, float by, const float *scale, const float *angles, long width,
                             float *out) {
  for (long i = 0; i < width; i += LANES)
    store(out + i, rotate(load(x + i) * by * load(scale + i), load(angles + i)));
}

INLINE float mean_square(const float *x, long width) {
  vec squares = splat(0);
  for (long i = 0; i < width; i += LANES) squares = squares + load(x + i) * load(x + i);
  return sum_of(squares) / width;
}

#if LANES == 16
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
#endif

/* e^x to 2e-7 of its size, x limited to +-87: 2^n e^r with |r| <= ln 2 / 2, e^r by its series. */
INLINE vec exponential(vec x) {
  x = larger(smaller(x, splat(87)), splat(-87));
  const vec to_integer = splat(12582912.f); /* 1.5 * 2^23: the sum's last bits are the integer */
  const vec shifted = x * 1.44269504f + to_integer, n = shifted - to_integer;
  const vec r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  vec sum = r * (1 / 720.f) + 1 / 120.f;
  sum = sum * r + 1 / 24.f;
  sum = sum * r + 1 / 6.f;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.f;
  sum = sum * r + 1.f;
  return (vec)((ivec)sum + ((ivec)shifted << 23));
}

/* GELU in its approximation by tanh: x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
INLINE vec gelu(vec x) {
  const vec cube = x * x * 0.044715f + 1.f;
  return x / (1.f + exponential(x * cube * -1.5957691216f));
}

INLINE vec silu(vec x) { return x / (1.f + exponential(-x)); }
