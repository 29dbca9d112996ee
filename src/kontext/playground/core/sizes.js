// Output size by the rules of the engine, so that the page can show it before the run.

export const ASPECTS = ['match', '1:1', '4:3', '3:4', '3:2', '2:3', '16:9', '9:16', '21:9'];
const MIN_SIDE = 16;
const MAX_SIDE = 16384;

/** "match", {aspect: [w, h]} or {size: [w, h]}; null if it cannot be parsed. */
export function parse(sizeSpec) {
  if (sizeSpec === 'match') return 'match';
  const found = /^\s*(\d{1,5})\s*([x×:])\s*(\d{1,5})\s*$/i.exec(sizeSpec);
  if (!found) return null;
  const sides = [Number(found[1]), Number(found[3])];
  if (found[2] === ':') return sides[0] && sides[1] && sides[0] <= 16 * sides[1] && sides[1] <= 16 * sides[0] ? { aspect: sides } : null;
  return Math.min(...sides) >= MIN_SIDE && Math.max(...sides) <= MAX_SIDE ? { size: sides } : null;
}

/** Round half to even, as Python does. */
function round(value) {
  const down = Math.floor(value);
  return value - down === 0.5 ? down + (down % 2) : Math.round(value);
}

/** Largest size with an aspect ratio (width / height) that fits into `size`. */
export function within([width, height], aspect) {
  return width / height > aspect
    ? [Math.max(1, Math.min(width, round(height * aspect))), height]
    : [width, Math.max(1, Math.min(height, round(width / aspect)))];
}

/** Output size in pixels. `original` is null for text-to-image; `native` are the model's sizes. */
export function outputSize(sizeSpec, original, native) {
  const read = parse(sizeSpec);
  if (read === null) return null;
  if (read !== 'match' && read.size) return read.size;
  if (original) return read === 'match' ? original : within(original, read.aspect[0] / read.aspect[1]);
  const aspect = read === 'match' ? 1 : read.aspect[0] / read.aspect[1];
  const off = (size) => Math.abs(aspect - size[0] / size[1]);
  const canvas = [...native].sort((a, b) => off(a) - off(b) || a[0] - b[0])[0];
  return canvas ? within(canvas, aspect) : null;
}

/** The part of the original that is used, as fractions [x, y, width, height] of its sides. */
export function usedPart(sizeSpec, original, native) {
  const size = outputSize(sizeSpec, original, native);
  if (!size || !original) return [0, 0, 1, 1];
  const [width, height] = within(original, size[0] / size[1]);
  const [w, h] = [width / original[0], height / original[1]];
  return [(1 - w) / 2, (1 - h) / 2, w, h];
}
