// The region that an edit changed: the rest is dimmed, the border is a bright line.

const VEIL = 150; // alpha over unchanged pixels
const FINEST = 1024; // small pictures get a finer overlay, so that its line is smooth

/** Gray levels of a region picture -> RGBA of the overlay; pure, for tests. */
export function veilPixels(gray, width, height) {
  const pixels = new Uint8ClampedArray(width * height * 4);
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && gray[(y * width + x) * 4] > 127;
  const line = Math.max(1, Math.round(Math.min(width, height) / 280));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = (y * width + x) * 4;
      if (inside(x, y)) continue;
      const border = inside(x - line, y) || inside(x + line, y) || inside(x, y - line) || inside(x, y + line);
      pixels.set(border ? [255, 212, 46, 255] : [16, 17, 20, VEIL], at);
    }
  }
  return pixels;
}

/** Draw the overlay of a region picture on a canvas; sets `data-drawn` when finished. */
export async function veil(canvas, address) {
  canvas.dataset.of = address;
  const image = new Image();
  image.src = address;
  await image.decode();
  const finer = Math.max(1, Math.ceil(FINEST / Math.max(image.naturalWidth, image.naturalHeight)));
  const [width, height] = [image.naturalWidth * finer, image.naturalHeight * finer];
  Object.assign(canvas, { width, height });
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.imageSmoothingQuality = 'high';
  context.drawImage(image, 0, 0, width, height);
  const pixels = veilPixels(context.getImageData(0, 0, width, height).data, width, height);
  context.putImageData(new ImageData(pixels, width, height), 0, 0);
  canvas.dataset.drawn = true;
}
