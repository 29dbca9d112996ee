/* Vectors of LANES floats (16, 8 or 4) by the compiler's vector extensions: one text for every instruction
   set. The file that includes this defines LANES and TARGET, the attribute that selects the instructions. */

#define INLINE TARGET static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int ivec __attribute__((vector_size(4 * LANES)));
typedef float unaligned_vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static const float EPSILON = 1e-6f;

INLINE vec load(const float *x) { return *(const unaligned_vec *)x; }
INLINE void store(float *x, vec value) { *(unaligned_vec *)x = value; }
INLINE vec splat(float x) { return x - (vec){0}; }

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

INLINE vec larger(vec a, vec b) {
  const ivec first = a > b;
  return (vec)((first & (ivec)a) | (~first & (ivec)b));
}

INLINE float sum_of(vec x) {
  float lanes[LANES], sums[4] = {0};
  store(lanes, x);
  for (int i = 0; i < LANES; i++) sums[i % 4] += lanes[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
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
#elif LANES == 8
#define SWAPPED 1, 0, 3, 2, 5, 4, 7, 6
#define EVEN 0, 0, 2, 2, 4, 4, 6, 6
#define ODD 1, 1, 3, 3, 5, 5, 7, 7
#define SIGNS -1, 1, -1, 1, -1, 1, -1, 1
#else
#define SWAPPED 1, 0, 3, 2
#define EVEN 0, 0, 2, 2
#define ODD 1, 1, 3, 3
#define SIGNS -1, 1, -1, 1
#endif

/* Pairs of numbers turned by angles given as (cosine, sine). */
INLINE vec rotate(vec x, vec angles) {
  const vec cosines = SHUFFLE(angles, EVEN), sines = SHUFFLE(angles, ODD) * (vec){SIGNS};
  return x * cosines + SHUFFLE(x, SWAPPED) * sines;
}

/* e^x to 2e-7 of its size, x limited to +-87: 2^n e^r with |r| <= ln 2 / 2, e^r by its series. */
INLINE vec exponential(vec x) {
  x = larger(-larger(-x, splat(-87)), splat(-87));
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
