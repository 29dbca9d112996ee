// Pointing at a place: a box, a brush that limits the edit (mask) and a red pen that the model sees (markup).
// Everything is kept as numbers in pixels of the picture, so that nothing is lost on a resize or a reload.

export const EMPTY = { box: null, mask: [], markup: [] };
export const TOOLS = { box: 'box', brush: 'mask', pen: 'markup' };
const RED = '#ff0000';

export function isEmpty(pointing) {
  return !pointing || (!pointing.box && !pointing.mask.length && !pointing.markup.length);
}

/** A box from two corners, in whole pixels inside the picture; null when there is nothing in it. */
export function boxFrom([x0, y0], [x1, y1], [width, height]) {
  const clamp = (value, limit) => Math.min(Math.max(value, 0), limit);
  const left = Math.floor(clamp(Math.min(x0, x1), width));
  const top = Math.floor(clamp(Math.min(y0, y1), height));
  const right = Math.ceil(clamp(Math.max(x0, x1), width));
  const bottom = Math.ceil(clamp(Math.max(y0, y1), height));
  return right - left < 2 || bottom - top < 2 ? null : [left, top, right - left, bottom - top];
}

/** A box moved or (with `grow`) resized, kept inside the picture. */
export function nudge([x, y, w, h], dx, dy, grow, [width, height]) {
  if (grow) return [x, y, Math.min(Math.max(w + dx, 4), width - x), Math.min(Math.max(h + dy, 4), height - y)];
  return [Math.min(Math.max(x + dx, 0), width - w), Math.min(Math.max(y + dy, 0), height - h), w, h];
}

function trace(context, strokes, scale) {
  context.lineCap = context.lineJoin = 'round';
  for (const { width, points } of strokes) {
    context.lineWidth = width * scale;
    context.beginPath();
    points.forEach(([x, y], index) => context[index ? 'lineTo' : 'moveTo'](x * scale, y * scale));
    if (points.length === 1) context.lineTo(points[0][0] * scale + 0.01, points[0][1] * scale);
    context.stroke();
  }
}

/** The red frame as the model sees it. */
function frame(context, box, size, scale) {
  const line = Math.max(2, (Math.min(...size) / 64) * scale);
  const [x, y, w, h] = box.map((value) => value * scale);
  context.lineWidth = line;
  context.strokeRect(x + line / 2, y + line / 2, Math.max(w - line, 1), Math.max(h - line, 1));
}

/** What a box leaves as it is goes dim. */
function dim(context, box, scale) {
  const [x, y, w, h] = box.map((value) => value * scale);
  context.fillStyle = '#10111466';
  context.beginPath();
  context.rect(0, 0, context.canvas.width, context.canvas.height);
  context.rect(x, y, w, h);
  context.fill('evenodd');
}

/** Draw on the canvas over the picture; `scale` is canvas pixels a picture pixel; `seen`: the model is shown the box. */
export function draw(canvas, pointing, size, scale, seen) {
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (pointing.mask.length) {
    context.save();
    context.globalAlpha = 0.5;
    const layer = new OffscreenCanvas(canvas.width, canvas.height);
    const paint = layer.getContext('2d');
    paint.strokeStyle = '#ffd42e';
    trace(paint, pointing.mask, scale);
    context.drawImage(layer, 0, 0);
    context.restore();
  }
  if (pointing.box) dim(context, pointing.box, scale);
  context.strokeStyle = RED;
  trace(context, pointing.markup, scale);
  if (pointing.box && seen) frame(context, pointing.box, size, scale);
  else if (pointing.box) {
    context.lineWidth = 2 * (window.devicePixelRatio || 1);
    context.strokeRect(...pointing.box.map((value) => value * scale));
  }
}

/** The mask (white on black) or the markup (red on nothing, the box with it) as a PNG as large as the picture. */
export function toPng(kind, strokes, [width, height], box = null) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d');
  if (kind === 'mask') {
    context.fillStyle = '#000';
    context.fillRect(0, 0, width, height);
  }
  context.strokeStyle = kind === 'mask' ? '#fff' : RED;
  trace(context, strokes, 1);
  if (box) frame(context, box, [width, height], 1);
  return canvas.convertToBlob({ type: 'image/png' });
}
