/* A 3 x 3 convolution with the group norm and silu before it, and the sums for the next norm after it. */

static const long BAND = 1 << 18; /* bytes of input that are prepared at a time */

/* Norm and silu of a row of pixels: silu(factor x + shift). */
INLINE void put_pixels(const convolution_t *p, const float *x, const float *factor, const float *shift,
                       number *out) {
  const long c = p->channels;
  for (long i = 0; i < p->width; i++) {
    const float *pixel = x + (p->enlarge ? i / 2 : i) * c;
    for (long j = 0; j < c; j += LANES) {
      vec y = load(pixel + j);
      if (p->norm_weight) y = silu(y * load(factor + j) + load(shift + j));
      put_pixel(y, out + i * c + j);
    }
  }
}

/* The norm as factor and shift of each channel. */
TARGET static void norm_of(const convolution_t *p, float *factor, float *shift) {
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

/* `count` results of row y from pixel `x` on, columns from `column` on -> out, and their sums. */
INLINE void deliver_pixels(const convolution_t *p, const float *results, long y, long x, long count,
                           long column, double *sums) {
  for (long part = 0; part < COLUMNS && column + part < p->columns; part += LANES) {
    const long width = p->columns - column - part;
    const vec bias = load_first(p->bias + column + part, width);
    vec sum = splat(0), squares = sum;
    for (long i = 0; i < count; i++) {
      const long at = (y * p->width + x + i) * p->columns + column + part;
      vec value = load(results + i * COLUMNS + part) + bias;
      if (p->residual) value += load_first(p->residual + at, width);
      store_first(p->out + at, value, width);
      sum += value;
      squares = squares + value * value;
    }
    float each[2][LANES];
    store(each[0], sum);
    store(each[1], squares);
    for (long i = 0; sums && i < least(LANES, width); i++) {
      sums[(column + part + i) * 2] += each[0][i];
      sums[(column + part + i) * 2 + 1] += each[1][i];
    }
  }
}

TARGET static int convolution_share(const void *job, long share, long shares) {
  const convolution_t *p = job;
  const long c = p->channels, begin = p->height * share / shares, end = p->height * (share + 1) / shares;
  const long blocks = up(p->width, GROUP) / GROUP; /* groups of pixels in a row */
  const long row = (blocks * GROUP + 4) * c;       /* a pixel before, and three behind */
  const long band = least(end - begin, BAND / (row * (long)sizeof(number)) + 1);
  const long panel = right_size(3 * up(3 * c, INNER_STEP), p->parts);
  float results[ROWS * COLUMNS] __attribute__((aligned(64)));
  double *sums = p->out_sums ? p->out_sums + share * p->columns * 2 : 0;
  if (sums) memset(sums, 0, p->columns * 2 * sizeof(double));
  if (begin == end) return 0;
  float *factor = aligned_alloc(64, up(2 * c * sizeof(float) + (band + 2) * row * sizeof(number) + 64, 64));
  if (!factor) return 1;
  float *shift = factor + c;
  number *ready = (number *)(shift + c);
  norm_of(p, factor, shift);
  for (long top = begin; top < end; top += band) {
    const long bottom = least(end, top + band);
    memset(ready, 0, (band + 2) * row * sizeof(number));
    for (long y = top - 1; y <= bottom; y++)
      if (y >= 0 && y < p->height)
        put_pixels(p, p->x + (p->enlarge ? y / 2 * (p->width / 2) : y * p->width) * c, factor, shift,
                   ready + (y - top + 1) * row + c);
    for (long column = 0; column < p->columns; column += COLUMNS) {
      const int wide = column + COLUMNS / 2 < p->columns;
      const number *right = (const number *)p->weights + column / COLUMNS * panel;
      for (long block = 0; block < (bottom - top) * blocks; block += GROUPS) {
        const long groups = least(GROUPS, (bottom - top) * blocks - block);
        const number *left[GROUPS] = {0};
        for (long i = 0; i < groups; i++)
          left[i] = ready + (block + i) / blocks * row + (block + i) % blocks * GROUP * c;
        const long rows = least(GROUP, p->width - block % blocks * GROUP);
        convolve(left, groups, rows, c, row, right, wide, results);
        for (long i = 0; i < groups; i++) {
          const long x = (block + i) % blocks * GROUP;
          deliver_pixels(p, results + i * GROUP * COLUMNS, top + (block + i) / blocks, x,
                         least(GROUP, p->width - x), column, sums);
        }
      }
    }
  }
  free(factor);
  return 0;
}
