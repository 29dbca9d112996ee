// Pointing at a place: a box and a brush mark what may change (their union), an eraser removes from it, a red pen
// draws a hint that the model sees. All coordinates are picture pixels, so a resize or reload loses nothing.

/**
 * @typedef {[number, number]} Size width and height in pixels
 * @typedef {[number, number, number, number]} Box x, y, width and height in pixels
 * @typedef {{width: number, points: number[][], erase?: boolean}} Stroke
 * @typedef {{box: ?Box, mask: Stroke[], markup: Stroke[]}} Pointing
 */

/** @type {Pointing} */
export const EMPTY = { box: null, mask: [], markup: [] };
export const TOOLS = { box: ['box'], brush: ['mask'], pen: ['markup'], eraser: ['mask', 'markup'] };
/** Stroke width as a fraction of the shorter side: minimum, maximum, default. */
export const WIDTHS = { brush: [0.02, 0.4, 0.11], eraser: [0.02, 0.4, 0.11], pen: [0.008, 0.06, 0.016] };
const RED = '#ff0000';
const YELLOW = '#ffd42e';

const paints = (strokes) => strokes.some((stroke) => !stroke.erase);

export function isEmpty(pointing) {
  return !pointing || (!pointing.box && !paints(pointing.mask) && !paints(pointing.markup));
}

/** Add a stroke; an eraser applies only to the layers that have content. */
export function withStroke(pointing, tool, stroke) {
  const there = { mask: pointing.box || pointing.mask.length, markup: pointing.markup.length };
  const kinds = TOOLS[tool].filter((kind) => tool !== 'eraser' || there[kind]);
  return Object.fromEntries(kinds.map((kind) => [kind, [...pointing[kind], stroke]]));
}

/**
 * A box from two corners, in whole pixels inside the picture; null if it is empty.
 * @param {[number, number]} corner
 * @param {[number, number]} opposite
 * @param {Size} size
 * @returns {?Box}
 */
export function boxFrom([x0, y0], [x1, y1], [width, height]) {
  const clamp = (value, limit) => Math.min(Math.max(value, 0), limit);
  const left = Math.floor(clamp(Math.min(x0, x1), width));
  const top = Math.floor(clamp(Math.min(y0, y1), height));
  const right = Math.ceil(clamp(Math.max(x0, x1), width));
  const bottom = Math.ceil(clamp(Math.max(y0, y1), height));
  return right - left < 2 || bottom - top < 2 ? null : [left, top, right - left, bottom - top];
}

/**
 * A box moved or (with `grow`) resized, kept inside the picture.
 * @param {Box} box
 * @param {number} dx
 * @param {number} dy
 * @param {boolean} grow
 * @param {Size} size
 * @returns {Box}
 */
export function nudge([x, y, w, h], dx, dy, grow, [width, height]) {
  if (grow) return [x, y, Math.min(Math.max(w + dx, 4), width - x), Math.min(Math.max(h + dy, 4), height - y)];
  return [Math.min(Math.max(x + dx, 0), width - w), Math.min(Math.max(y + dy, 0), height - h), w, h];
}

/**
 * @param {Box} box
 * @param {number} scale
 * @returns {Box}
 */
function scaled([x, y, w, h], scale) {
  return [x * scale, y * scale, w * scale, h * scale];
}

/** Draw strokes in order; erasing strokes cut out what is below. */
function trace(context, strokes, scale) {
  context.save();
  context.lineCap = context.lineJoin = 'round';
  for (const { width, points, erase } of strokes) {
    context.globalCompositeOperation = erase ? 'destination-out' : 'source-over';
    context.lineWidth = width * scale;
    context.beginPath();
    points.forEach(([x, y], index) => context[index ? 'lineTo' : 'moveTo'](x * scale, y * scale));
    if (points.length === 1) context.lineTo(points[0][0] * scale + 0.01, points[0][1] * scale);
    context.stroke();
  }
  context.restore();
}

/** A transparent canvas with the area that may change painted in one color: box and strokes minus erased parts. */
function marked(pointing, [width, height], scale, color, box = pointing.box) {
  const canvas = new OffscreenCanvas(Math.max(1, width), Math.max(1, height));
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.fillStyle = context.strokeStyle = color;
  if (box) context.fillRect(...scaled(box, scale));
  trace(context, pointing.mask, scale);
  return canvas;
}

/** Draw the red frame as the model sees it. */
function frame(context, box, size, scale) {
  const line = Math.max(2, (Math.min(...size) / 64) * scale);
  const [x, y, w, h] = box.map((value) => value * scale);
  context.lineWidth = line;
  context.strokeRect(x + line / 2, y + line / 2, Math.max(w - line, 1), Math.max(h - line, 1));
}

/**
 * Draw on the canvas over the picture.
 * @param {HTMLCanvasElement} canvas
 * @param {Pointing} pointing
 * @param {Size} size of the picture
 * @param {number} scale canvas pixels per picture pixel
 * @param {{shown: boolean, active: boolean}} how `shown`: the model is shown the box; `active`: a pointing tool is selected
 */
export function draw(canvas, pointing, size, scale, { shown, active }) {
  const context = canvas.getContext('2d');
  /** @type {Size} */
  const whole = [canvas.width, canvas.height];
  context.clearRect(0, 0, ...whole);
  if (pointing.box && active) {
    context.fillStyle = '#10111466';
    context.fillRect(0, 0, ...whole);
    context.globalCompositeOperation = 'destination-out';
    context.drawImage(marked(pointing, whole, scale, '#000'), 0, 0);
    context.globalCompositeOperation = 'source-over';
  }
  if (pointing.mask.length) {
    context.globalAlpha = active ? 0.5 : 0.3;
    context.drawImage(marked(pointing, whole, scale, YELLOW, null), 0, 0);
    context.globalAlpha = 1;
  }
  if (pointing.markup.length) {
    const layer = new OffscreenCanvas(...whole);
    const paint = layer.getContext('2d');
    paint.strokeStyle = RED;
    trace(paint, pointing.markup, scale);
    context.drawImage(layer, 0, 0);
  }
  context.strokeStyle = RED;
  if (pointing.box && shown) frame(context, pointing.box, size, scale);
  else if (pointing.box) {
    context.lineWidth = 2 * (window.devicePixelRatio || 1);
    context.strokeRect(...scaled(pointing.box, scale));
  }
}

/**
 * White where the picture may change, black elsewhere, as a PNG of the picture's size.
 * @param {Pointing} pointing
 * @param {Size} size
 */
export function maskPng(pointing, size) {
  const canvas = new OffscreenCanvas(...size);
  const context = canvas.getContext('2d');
  context.fillStyle = '#000';
  context.fillRect(0, 0, ...size);
  context.drawImage(marked(pointing, size, 1, '#fff'), 0, 0);
  return canvas.convertToBlob({ type: 'image/png' });
}

/**
 * The red strokes (and the box, where the model is shown it) on a transparent background, as a PNG.
 * @param {Stroke[]} strokes
 * @param {Size} size of the picture
 * @param {?Box} box
 */
export function markupPng(strokes, size, box = null) {
  return markupCanvas(strokes, size, box).convertToBlob({ type: 'image/png' });
}

/**
 * @param {Stroke[]} strokes
 * @param {Size} size
 * @param {?Box} box
 */
function markupCanvas(strokes, size, box) {
  const canvas = new OffscreenCanvas(...size);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.strokeStyle = RED;
  trace(context, strokes, 1);
  if (box) frame(context, box, size, 1);
  return canvas;
}

/** Bounding box of the painted pixels of a canvas as [left, top, right, bottom]; null if there are none. */
function bounds(canvas) {
  const { width, height } = canvas;
  const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
  let found = null;
  for (let at = 3; at < data.length; at += 4) {
    if (data[at] < 128) continue;
    const [x, y] = [((at - 3) / 4) % width, Math.floor((at - 3) / 4 / width)];
    found ??= [x, y, x + 1, y + 1];
    found = [Math.min(found[0], x), found[1], Math.max(found[2], x + 1), y + 1];
  }
  return found;
}

/**
 * Locale key of the reason why the server cannot use a drawing: nothing is marked any more, or the hint lies outside
 * the area that may change. Null if it can be used.
 * @param {Pointing} pointing
 * @param {Size} size
 * @param {?Box} shownBox the box, if the model is shown it
 */
export function problem(pointing, size, shownBox = null) {
  const limited = pointing.box || pointing.mask.length;
  const inside = limited ? marked(pointing, size, 1, '#fff') : null;
  if (inside && !bounds(inside)) return 'point.nothing';
  if (!pointing.markup.length && !shownBox) return null;
  const hint = bounds(markupCanvas(pointing.markup, size, shownBox));
  if (!hint) return 'point.nothing';
  if (!inside) return null;
  const [left, top, right, bottom] = hint;
  const part = new OffscreenCanvas(right - left, bottom - top);
  part.getContext('2d', { willReadFrequently: true }).drawImage(inside, -left, -top);
  return bounds(part) ? null : 'point.apart';
}
