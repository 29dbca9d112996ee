/* The kernels for processors with Intel AMX: bfloat16 products in tiles, everything else in AVX-512. */

#if defined(__x86_64__) && defined(__GNUC__) && (__GNUC__ >= 11 || defined(__clang__))

#include <immintrin.h>

#include "kernels.h"

#define TARGET __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")))
#define LANES 16
#include "vector.h"
/* first the micro-kernel, then what is built on it */
#include "product_amx.h"

#include "attention.h"
#include "convolution.h"
#include "linear.h"

/* Of the tiles themselves only the operating system knows, which the caller has asked for them. */
static int supported(void) {
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl");
}

/* All eight tiles have 16 rows of 64 bytes. Constant, since the intrinsic of some compilers says that it
   reads the first bytes alone, and stores to the others would be dropped. */
static const struct {
  uint8_t palette, start, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
} ALL_TILES = {
    .palette = 1, .bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

TARGET static void enter(void) { _tile_loadconfig(&ALL_TILES); }

TARGET static void leave(void) { _tile_release(); }

const backend_t kontext_amx = {
    .name = "amx",
    .supported = supported,
    .enter = enter,
    .leave = leave,
    .share = {[PRODUCT] = product_share, [ATTENTION] = attention_share, [CONVOLUTION] = convolution_share},
    .panel_bytes = panel_bytes,
    .pack = pack,
    .inner_step = INNER_STEP,
    .weight_bytes = sizeof(number),
};

#endif
