// Per-pixel difference of two pictures.

const GAIN = 4; // makes small differences visible

/**
 * RGBA bytes of two pictures of equal size -> RGBA of their difference (bright = different) and the fraction
 * of pixels that differ at all.
 */
export function differencePixels(a, b) {
  const pixels = new Uint8ClampedArray(a.length);
  let different = 0;
  for (let at = 0; at < a.length; at += 4) {
    const far = [0, 1, 2].map((channel) => Math.abs(a[at + channel] - b[at + channel]));
    const most = Math.max(...far);
    if (most) different++;
    for (let channel = 0; channel < 3; channel++) pixels[at + channel] = most ? 24 + far[channel] * GAIN : 16;
    pixels[at + 3] = 255;
  }
  return { pixels, share: different / (a.length / 4) };
}
