/* The tile instructions of AMX in plain C, to test the kernels for it on other processors. */

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

static __thread float tiles[8][16][16];

static inline void load_tile(int tile, const void *from, long stride) {
  for (int i = 0; i < 16; i++) memcpy(tiles[tile][i], (const char *)from + i * stride, 64);
}

static inline void store_tile(int tile, void *to, long stride) {
  for (int i = 0; i < 16; i++) memcpy((char *)to + i * stride, tiles[tile][i], 64);
}

static inline float widened(const void *tile, int row, int column) {
  uint16_t half;
  memcpy(&half, (const char *)tile + row * 64 + column * 2, 2);
  uint32_t bits = (uint32_t)half << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static inline void multiply_tiles(int out, int left, int right) {
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 16; j++)
      for (int k = 0; k < 32; k++)
        tiles[out][i][j] += widened(tiles[left], i, k) * widened(tiles[right], k / 2, 2 * j + k % 2);
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) ((void)(config))
#define _tile_release() ((void)0)
#define _tile_zero(tile) memset(tiles[tile], 0, sizeof tiles[tile])
#define _tile_loadd(tile, from, stride) load_tile(tile, from, stride)
#define _tile_stored(tile, to, stride) store_tile(tile, to, stride)
#define _tile_dpbf16ps(out, left, right) multiply_tiles(out, left, right)
#endif
