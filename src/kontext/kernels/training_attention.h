/* Attention in training, forward and backward, with the norms and rotations of queries and keys. Scores are
   computed again on the way back.

   Products take words of 32 bits: a float, or with DOT two bfloat16 numbers that are adjacent along the inner
   dimension, of which one instruction adds both products. A matrix is packed from rows of floats in one of
   three ways, of which two are the floats themselves where a word is a float:
     rows     [row][words of the row]                the left factor whose inner dimension is that of the rows
     columns  [words of the row][row]                the right factor likewise
     pairs    [words of PER_WORD rows][column]       both factors where the rows are the inner dimension */

#ifdef DOT
enum { PER_WORD = 2, AHEAD = 8 };
INLINE vec multiply_add(vec x, vec y, vec sum) {
  return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
}
INLINE vec word_of(vec even, vec odd) { /* lanes of `even` in the lower halves */
  const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)even));
  const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)odd));
  return (vec)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
#else
enum { PER_WORD = 1, AHEAD = 8 };
INLINE vec multiply_add(vec x, vec y, vec sum) { return sum + x * y; }
#endif

INLINE vec splat_word(const float *x) { return (vec)(*(const int *)x - (ivec){0}); }

/* `count` floats -> words of a row. */
INLINE void put_row(const float *x, long count, float *words) {
#ifdef DOT
  for (long i = 0; i < count; i += 2 * LANES)
    store(words + i / 2, (vec)_mm512_cvtne2ps_pbh((__m512)load(x + i + LANES), (__m512)load(x + i)));
#else
  memcpy(words, x, count * sizeof(float));
#endif
}

/* Rows `from` to `to` (multiples of PER_WORD), `width` floats each -> pairs. */
INLINE void put_pairs(const float *x, long from, long to, long width, float *words) {
#ifdef DOT
  for (long i = from; i < to; i += 2)
    for (long j = 0; j < width; j += LANES)
      store(words + i / 2 * width + j, word_of(load(x + i * width + j), load(x + (i + 1) * width + j)));
#else
  memcpy(words + from * width, x + from * width, (to - from) * width * sizeof(float));
#endif
}

/* Rows `from` to `to` (multiples of LANES), `width` floats each -> columns of a matrix of `all` columns. */
INLINE void put_columns(const float *x, long from, long to, long width, long all, float *words) {
  const long count = width / PER_WORD;
  float rows[LANES * count];
  for (long i = from; i < to; i += LANES) {
    for (long k = 0; k < LANES; k++) put_row(x + (i + k) * width, width, rows + k * count);
#if LANES == 16
    for (long j = 0; j < count; j += LANES) {
      __m512i block[LANES];
      for (int k = 0; k < LANES; k++) block[k] = _mm512_loadu_si512(rows + k * count + j);
      transpose(block);
      for (int k = 0; k < LANES; k++) _mm512_storeu_si512(words + (j + k) * all + i, block[k]);
    }
#else
    for (long j = 0; j < count; j++)
      for (long k = 0; k < LANES; k++) words[j * all + i + k] = rows[k * count + j];
#endif
  }
}

/* rows x `vectors` vectors of columns. */
INLINE void multiply_tile(const float *left, long row_step, long inner_step, const float *right,
                          long right_step, long inner, float *out, long out_step, const int rows,
                          const int vectors) {
  vec sums[ROWS][2];
#pragma GCC unroll 16
  for (int i = 0; i < rows; i++) sums[i][0] = sums[i][1] = splat(0);
  for (long k = 0; k < inner; k++, left += inner_step, right += right_step) {
    const vec first = load(right), second = vectors > 1 ? load(right + LANES) : first;
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
      const vec x = splat_word(left + i * row_step);
      sums[i][0] = multiply_add(x, first, sums[i][0]);
      if (vectors > 1) sums[i][1] = multiply_add(x, second, sums[i][1]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; i++) {
    store(out + i * out_step, sums[i][0]);
    if (vectors > 1) store(out + i * out_step + LANES, sums[i][1]);
  }
}

/* out (rows x columns) = left times right over `inner` words. Word (i, k) of the left factor is at
   i row_step + k inner_step; `columns` is a multiple of LANES. Rows are computed in thirds of ROWS, and
   written up to that. */
TARGET static void multiply_words(const float *left, long row_step, long inner_step, const float *right,
                                  long right_step, long inner, float *out, long out_step, long rows,
                                  long columns) {
#define TILE(height)                                                                                       \
  {                                                                                                        \
    if (columns - j > LANES && row_step == 1)                                                              \
      multiply_tile(left + i, 1, inner_step, right + j, right_step, inner, at, out_step, height, 2);       \
    else if (columns - j > LANES)                                                                          \
      multiply_tile(left + i * row_step, row_step, 1, right + j, right_step, inner, at, out_step, height,  \
                    2);                                                                                    \
    else                                                                                                   \
      multiply_tile(left + i * row_step, row_step, inner_step, right + j, right_step, inner, at, out_step, \
                    height, 1);                                                                            \
  }
  for (long j = 0; j < columns; j += 2 * LANES)
    for (long i = 0; i < rows; i += ROWS) {
      float *at = out + i * out_step + j;
      if (rows - i > 2 * ROWS / 3)
        TILE(ROWS)
      else if (rows - i > ROWS / 3)
        TILE(2 * ROWS / 3)
      else
        TILE(ROWS / 3)
    }
#undef TILE
}

/* Sizes of one item and head, and the matrices of a thread: rows of floats, and their words. */
typedef struct {
  const training_attention_t *p;
  long width, own, all, padded; /* keys: own, with those of the prefix (which come first), padded */
  long queries, padded_queries;
  float *raw_keys, *raw_queries, *key_norms, *query_norms; /* as given, and 1 / root mean square */
  float *keys, *values, *q, *g;                            /* g: the gradient of what queries attend to */
  float *key_columns, *value_columns, *key_pairs, *value_pairs, *q_rows, *g_rows, *q_pairs, *g_pairs;
  float *scores, *slopes, *score_rows; /* of ROWS queries; slopes: the gradient of the scores */
  float *share_pairs, *slope_pairs;    /* of all queries; shares: the softmax */
  float *key_gradient, *value_gradient, *query_gradient;
  float *prefix_key_sums, *prefix_value_sums; /* gradients of the prefix, over the items that share it */
  float *result;
} room_t;

INLINE const float *scale_of(const training_attention_t *p, const float *scales, long i) {
  return scales + (i >= p->rows.first) * p->rows.width;
}

/* Row `i` of an item; `size`: bytes of a number. */
INLINE char *row_at(const training_attention_t *p, const pieces_t *pieces, long item, long i, long size) {
  const long first = p->rows.first, late = i >= first;
  const long row = late ? item * (p->rows.rows - first) + i - first : item * first + i;
  return (char *)pieces->at[late] + row * pieces->row[late] * size;
}

/* Asks for `width` numbers of a row that is needed soon: the processor does not guess it. */
INLINE void fetch(const training_attention_t *p, const pieces_t *pieces, long item, long i, long at,
                  const int bfloat16, const int to_write) {
  const long size = bfloat16 ? 2 : 4;
  if (i >= p->rows.rows) return;
  const char *row = row_at(p, pieces, item, i, size) + at * size;
  for (long j = 0; j < p->rows.width * size; j += 64) __builtin_prefetch(row + j, to_write);
}

INLINE void load_row(const void *x, long at, long width, float *out, const int bfloat16) {
  for (long i = 0; i < width; i += LANES) store(out + i, load_number(x, at + i, bfloat16));
}

INLINE void store_row(void *x, long at, long width, const float *row, const int bfloat16) {
  for (long i = 0; i < width; i += LANES) store_number(x, at + i, load(row + i), bfloat16);
}

/* Rows from `start` on of queries (0), keys (1) or values (2) of a head, with their biases. */
INLINE void gather_rows(const room_t *m, int part, long item, long head, long start, float *rows,
                        const int bfloat16) {
  const training_attention_t *p = m->p;
  const long at = (part * p->heads + head) * m->width;
  for (long i = start; i < m->own; i++, rows += m->width) {
    const float *bias = p->bias[i >= p->rows.first] + at;
    const void *row = row_at(p, &p->qkv, item, i, bfloat16 ? 2 : 4);
    fetch(p, &p->qkv, item, i + AHEAD, at, bfloat16, 0);
    for (long j = 0; j < m->width; j += LANES)
      store(rows + j, load_number(row, at + j, bfloat16) + load(bias + j));
  }
}

/* Rows from `start` on, normed, scaled, turned and multiplied by `by`. In three passes: each is a long way
   for a row, and short for many. */
INLINE void norm_and_rotate_rows(const room_t *m, const float *x, const float *scales, long item, long start,
                                 float by, float *norms, float *out) {
  const training_attention_t *p = m->p;
  const long w = m->width, count = m->own - start;
  for (long i = 0; i < count; i++) norms[i] = mean_square(x + i * w, w);
  for (long i = 0; i < count; i++) norms[i] = 1 / __builtin_sqrtf(norms[i] + EPSILON);
  const float *angles = p->rotary + item * p->rotary_item;
  for (long i = 0; i < count; i++)
    scale_and_rotate(x + i * w, norms[i] * by, scale_of(p, scales, start + i), angles + (start + i) * w, w,
                     out + i * w);
}

/* The gradients of these rows -> those of x, which go to qkv's; sums of them and gradients of the scales. */
INLINE void give_back(const room_t *m, int part, long item, long head, long start, const float *x,
                      const float *norms, float by, float *gradients, const int bfloat16) {
  const training_attention_t *p = m->p;
  const long w = m->width, count = m->own - start, at = (part * p->heads + head) * w;
  const float *scales = part ? p->key_scale : p->query_scale, *table = p->rotary + item * p->rotary_item;
  float *scale_sums = p->scale_sums + ((item * p->heads + head) * 2 + part) * 2 * w;
  float *sums = p->qkv_sums + item * 6 * p->heads * w + at;
  float means[count];
  for (long i = 0; i < count; i++) {
    const long late = start + i >= p->rows.first;
    const float *scale = scale_of(p, scales, start + i), *angles = table + (start + i) * w;
    float *gradient = gradients + i * w;
    vec along = splat(0);
    for (long j = 0; j < w; j += LANES) {
      const vec n = load(x + i * w + j) * norms[i],
                turned = rotate_back(load(gradient + j), load(angles + j)) * by;
      const vec of_n = turned * load(scale + j);
      add_to(scale_sums + late * w, j, turned * n);
      store(gradient + j, of_n);
      along = along + of_n * n;
    }
    means[i] = sum_of(along) / w;
  }
  for (long i = 0; i < count; i++) {
    const long late = start + i >= p->rows.first;
    void *row = row_at(p, &p->qkv_gradient, item, start + i, bfloat16 ? 2 : 4);
    fetch(p, &p->qkv_gradient, item, start + i + AHEAD, at, bfloat16, 1);
    for (long j = 0; j < w; j += LANES) {
      const vec n = load(x + i * w + j) * norms[i];
      const vec gradient = (load(gradients + i * w + j) - n * means[i]) * norms[i];
      add_to(sums + late * 3 * p->heads * w, j, gradient);
      store_number(row, at + j, gradient, bfloat16);
    }
  }
}

/* A row of scores -> e^(score - largest); `softmax` gets the largest and 1 / their sum. */
INLINE void softmax_of(float *scores, long count, long padded, float *softmax) {
  for (long i = count; i < padded; i++) scores[i] = scores[0]; /* not larger than the largest */
  vec largest = load(scores), sum = splat(0);
  for (long i = LANES; i < padded; i += LANES) largest = larger(largest, load(scores + i));
  softmax[0] = largest_of(largest);
  for (long i = 0; i < padded; i += LANES) {
    const vec e = keep_first(exponential(load(scores + i) - softmax[0]), count - i);
    sum = sum + e;
    store(scores + i, e);
  }
  softmax[1] = 1 / sum_of(sum);
}

INLINE void attend_item(const room_t *m, long item, long head, const int bfloat16) {
  const training_attention_t *p = m->p;
  const long w = m->width, words = w / PER_WORD, score_words = m->padded / PER_WORD;
  float *softmax = p->softmax + 2 * ((item * p->heads + head) * m->own + p->start);
  for (long from = 0; from < m->queries; from += ROWS) {
    const long count = least(ROWS, m->queries - from);
    multiply_words(m->q_rows + from * words, words, 1, m->key_columns, m->padded, words, m->scores, m->padded,
                   count, m->padded);
    for (long i = 0; i < count; i++) {
      float *scores = m->scores + i * m->padded;
      softmax_of(scores, m->all, m->padded, softmax + 2 * (from + i));
      put_row(scores, m->padded, m->score_rows + i * score_words);
    }
    multiply_words(m->score_rows, score_words, 1, m->value_pairs, w, score_words, m->result, w, count, w);
    for (long i = 0; i < count; i++) {
      char *out = row_at(p, &p->out, item, p->start + from + i, bfloat16 ? 2 : 4);
      fetch(p, &p->out, item, p->start + from + i + AHEAD, head * w, bfloat16, 1);
      for (long j = 0; j < w; j += LANES)
        store_number(out, head * w + j, load(m->result + i * w + j) * softmax[2 * (from + i) + 1], bfloat16);
    }
  }
}

/* Scores of two rows -> softmax and the scores' gradients, in pairs, the latter also in rows. */
INLINE void slopes_of(const room_t *m, long from, long i, const float *softmax) {
  float *row[2], *slope[2];
  for (int k = 0; k < 2; k++) {
    row[k] = m->scores + (i + k) * m->padded, slope[k] = m->slopes + (i + k) * m->padded;
    if (from + i + k >= m->queries) {
      memset(row[k], 0, m->padded * sizeof(float));
      memset(slope[k], 0, m->padded * sizeof(float));
      continue;
    }
    const float largest = softmax[2 * (from + i + k)], by = softmax[2 * (from + i + k) + 1];
    vec sum = splat(0);
    for (long j = 0; j < m->padded; j += LANES) {
      const vec share = keep_first(exponential(load(row[k] + j) - largest) * by, m->all - j);
      sum = sum + share * load(slope[k] + j);
      store(row[k] + j, share);
    }
    const float mean = sum_of(sum);
    for (long j = 0; j < m->padded; j += LANES)
      store(slope[k] + j, load(row[k] + j) * (load(slope[k] + j) - mean));
    put_row(slope[k], m->padded, m->score_rows + (i + k) * (m->padded / PER_WORD));
  }
  const long at = (from + i) / PER_WORD * m->padded;
  put_pairs(row[0], 0, 2, m->padded, m->share_pairs + at);
  put_pairs(slope[0], 0, 2, m->padded, m->slope_pairs + at);
}

INLINE void attend_item_backward(const room_t *m, long item, long head, const int bfloat16) {
  const training_attention_t *p = m->p;
  const long w = m->width, words = w / PER_WORD, score_words = m->padded / PER_WORD;
  const long unit = item * p->heads + head;
  const float *softmax = p->softmax + 2 * (unit * m->own + p->start), by = 1 / __builtin_sqrtf(w);
  memset(p->scale_sums + unit * 4 * w, 0, 4 * w * sizeof(float));
  for (int i = 0; i < 6; i++)
    memset(p->qkv_sums + (item * 6 + i) * p->heads * w + head * w, 0, w * sizeof(float));
  for (long i = 0; i < m->queries; i++) {
    fetch(p, &p->out, item, p->start + i + AHEAD, head * w, bfloat16, 0);
    load_row(row_at(p, &p->out, item, p->start + i, bfloat16 ? 2 : 4), head * w, w, m->g + i * w, bfloat16);
    put_row(m->g + i * w, w, m->g_rows + i * words);
  }
  put_pairs(m->q, 0, m->padded_queries, w, m->q_pairs);
  put_pairs(m->g, 0, m->padded_queries, w, m->g_pairs);
  for (long from = 0; from < m->queries; from += ROWS) {
    const long count = least(ROWS, m->queries - from);
    multiply_words(m->q_rows + from * words, words, 1, m->key_columns, m->padded, words, m->scores, m->padded,
                   count, m->padded);
    multiply_words(m->g_rows + from * words, words, 1, m->value_columns, m->padded, words, m->slopes,
                   m->padded, count, m->padded);
    for (long i = 0; i < ROWS; i += 2) slopes_of(m, from, i, softmax);
    multiply_words(m->score_rows, score_words, 1, m->key_pairs, w, score_words, m->query_gradient + from * w,
                   w, count, w);
  }
  const long inner = m->padded_queries / PER_WORD;
  multiply_words(m->slope_pairs, 1, m->padded, m->q_pairs, w, inner, m->key_gradient, w, m->all, w);
  multiply_words(m->share_pairs, 1, m->padded, m->g_pairs, w, inner, m->value_gradient, w, m->all, w);
  for (long i = 0; i < p->prefix * w; i += LANES) {
    add_to(m->prefix_key_sums, i, load(m->key_gradient + i));
    add_to(m->prefix_value_sums, i, load(m->value_gradient + i));
  }
  float *key_gradient = m->key_gradient + p->prefix * w, *value_gradient = m->value_gradient + p->prefix * w;
  if (p->keys)
    for (long i = 0; i < m->own * w; i += LANES) {
      add_to(key_gradient, i, load_number(p->keys, unit * m->own * w + i, bfloat16));
      add_to(value_gradient, i, load_number(p->values, unit * m->own * w + i, bfloat16));
    }
  give_back(m, 0, item, head, p->start, m->raw_queries, m->query_norms, by, m->query_gradient, bfloat16);
  give_back(m, 1, item, head, 0, m->raw_keys, m->key_norms, 1, key_gradient, bfloat16);
  for (long i = 0; i < m->own; i++) {
    float *sums =
        p->qkv_sums + (item * 2 + (i >= p->rows.first)) * 3 * p->heads * w + (2 * p->heads + head) * w;
    void *row = row_at(p, &p->qkv_gradient, item, i, bfloat16 ? 2 : 4);
    fetch(p, &p->qkv_gradient, item, i + AHEAD, (2 * p->heads + head) * w, bfloat16, 1);
    for (long j = 0; j < w; j += LANES) add_to(sums, j, load(value_gradient + i * w + j));
    store_row(row, (2 * p->heads + head) * w, w, value_gradient + i * w, bfloat16);
  }
}

/* One prefix and head: the items that share it. */
INLINE void attend_group(const room_t *m, long group, long head, const int bfloat16) {
  const training_attention_t *p = m->p;
  const long w = m->width, backward = p->rows.backward, prefix = p->prefix * w;
  const long prefix_at = (group * p->heads + head) * prefix;
  long packed = 0; /* rows of keys and values that are in columns and pairs */
  if (prefix) {
    load_row(p->prefix_keys, prefix_at, prefix, m->keys, bfloat16);
    load_row(p->prefix_values, prefix_at, prefix, m->values, bfloat16);
    memset(m->prefix_key_sums, 0, prefix * sizeof(float));
    memset(m->prefix_value_sums, 0, prefix * sizeof(float));
  }
  for (long item = group * p->sharing; item < (group + 1) * p->sharing; item++) {
    const long own_at = (item * p->heads + head) * m->own * w;
    gather_rows(m, 1, item, head, 0, m->raw_keys, bfloat16);
    norm_and_rotate_rows(m, m->raw_keys, p->key_scale, item, 0, 1, m->key_norms, m->keys + prefix);
    gather_rows(m, 2, item, head, 0, m->values + prefix, bfloat16);
    if (p->keys && !backward) {
      store_row(p->keys, own_at, m->own * w, m->keys + prefix, bfloat16);
      store_row(p->values, own_at, m->own * w, m->values + prefix, bfloat16);
    }
    if (!m->queries && !backward) continue;
    gather_rows(m, 0, item, head, p->start, m->raw_queries, bfloat16);
    norm_and_rotate_rows(m, m->raw_queries, p->query_scale, item, p->start, 1 / __builtin_sqrtf(w),
                         m->query_norms, m->q);
    for (long i = 0; i < m->queries; i++) put_row(m->q + i * w, w, m->q_rows + i * (w / PER_WORD));
    put_columns(m->keys, packed, m->padded, w, m->padded, m->key_columns);
    if (backward) {
      put_columns(m->values, packed, m->padded, w, m->padded, m->value_columns);
      put_pairs(m->keys, packed, m->padded, w, m->key_pairs);
      attend_item_backward(m, item, head, bfloat16);
    } else {
      put_pairs(m->values, packed, m->padded, w, m->value_pairs);
      attend_item(m, item, head, bfloat16);
    }
    packed = p->prefix / LANES * LANES;
  }
  if (!backward || !prefix) return;
  store_row(p->prefix_keys_gradient, prefix_at, prefix, m->prefix_key_sums, bfloat16);
  store_row(p->prefix_values_gradient, prefix_at, prefix, m->prefix_value_sums, bfloat16);
}

TARGET static int training_attention_share(const void *job, long share, long shares) {
  const training_attention_t *p = job;
  const long w = p->rows.width, all = p->prefix + p->rows.rows, queries = p->rows.rows - p->start;
  room_t m = {.p = p, .width = w, .own = p->rows.rows, .all = all, .queries = queries};
  m.padded = up(all, 2 * LANES), m.padded_queries = up(queries, ROWS);
  const long k = up(m.padded, ROWS) * w, q = m.padded_queries * w, s = ROWS * m.padded;
  const long pairs = m.padded_queries * m.padded;
  struct {
    float **matrix;
    long floats;
  } const matrices[] = {
      {&m.raw_keys, k},
      {&m.raw_queries, q},
      {&m.key_norms, all},
      {&m.query_norms, all},
      {&m.keys, k},
      {&m.values, k},
      {&m.q, q},
      {&m.g, q},
      {&m.key_columns, k},
      {&m.value_columns, k},
      {&m.key_pairs, k},
      {&m.value_pairs, k},
      {&m.q_rows, q},
      {&m.g_rows, q},
      {&m.q_pairs, q},
      {&m.g_pairs, q},
      {&m.scores, s},
      {&m.slopes, s},
      {&m.score_rows, s},
      {&m.share_pairs, pairs},
      {&m.slope_pairs, pairs},
      {&m.key_gradient, k},
      {&m.value_gradient, k},
      {&m.query_gradient, q},
      {&m.prefix_key_sums, k},
      {&m.prefix_value_sums, k},
      {&m.result, ROWS * w},
  };
  const int count = sizeof(matrices) / sizeof(*matrices);
  long floats = 0;
  for (int i = 0; i < count; i++) floats += up(matrices[i].floats, 16);
  float *memory = aligned_alloc(64, floats * sizeof(float)), *next = memory;
  if (!memory) return 1;
  memset(memory, 0, floats * sizeof(float)); /* what pads a matrix stays 0 */
  for (int i = 0; i < count; i++) *matrices[i].matrix = next, next += up(matrices[i].floats, 16);
  const long units = p->rows.items / p->sharing * p->heads;
  for (long unit = units * share / shares; unit < units * (share + 1) / shares; unit++) {
    if (p->rows.bfloat16)
      attend_group(&m, unit / p->heads, unit % p->heads, 1);
    else
      attend_group(&m, unit / p->heads, unit % p->heads, 0);
  }
  free(memory);
  return 0;
}
