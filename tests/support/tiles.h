/* The tile instructions of AMX in plain C, to test the kernels for it on other processors. */

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

static __thread float tiles[8][16][16];
static __thread struct {
  uint8_t palette, start, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
} sizes;

/* Like the intrinsic of GCC 12, it says that it reads one pointer's worth of bytes. */
#define load_sizes(config)                                        \
  __asm__ volatile("vmovdqu64 %1, %%zmm0\n\tvmovdqu64 %%zmm0, %0" \
                   : "=m"(sizes)                                  \
                   : "m"(*(const void *const *)(config))          \
                   : "xmm0")

static inline void load_tile(int tile, const void *from, long stride) {
  for (int i = 0; i < sizes.rows[tile]; i++)
    memcpy(tiles[tile][i], (const char *)from + i * stride, sizes.bytes[tile]);
}

static inline void store_tile(int tile, void *to, long stride) {
  for (int i = 0; i < sizes.rows[tile]; i++)
    memcpy((char *)to + i * stride, tiles[tile][i], sizes.bytes[tile]);
}

static inline float widened(const uint16_t half) {
  const uint32_t bits = (uint32_t)half << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

/* out[i][j] += the sum over k of left[i][k] right[k / 2][2 j + k % 2]. */
static inline void multiply_tiles(int out, int left, int right) {
  uint16_t halves[2][16][32];
  float rights[32][16];
  memcpy(halves[0], tiles[left], sizeof halves[0]);
  memcpy(halves[1], tiles[right], sizeof halves[1]);
  for (int k = 0; k < 32; k++)
    for (int j = 0; j < 16; j++) rights[k][j] = widened(halves[1][k / 2][2 * j + k % 2]);
  for (int i = 0; i < 16; i++)
    for (int k = 0; k < 32; k++) {
      const float x = widened(halves[0][i][k]);
      for (int j = 0; j < 16; j++) tiles[out][i][j] += x * rights[k][j];
    }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) load_sizes(config)
#define _tile_release() ((void)0)
#define _tile_zero(tile) memset(tiles[tile], 0, sizeof tiles[tile])
#define _tile_loadd(tile, from, stride) load_tile(tile, from, stride)
#define _tile_stored(tile, to, stride) store_tile(tile, to, stride)
#define _tile_dpbf16ps(out, left, right) multiply_tiles(out, left, right)
#endif
