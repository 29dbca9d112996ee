// Reads the chunk names of a PNG to detect pictures that carry their Kontext history.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** Whether the bytes are a PNG with an iTXt chunk `kontext`. */
export function carriesHistory(bytes) {
  if (!SIGNATURE.every((value, index) => bytes[index] === value)) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const latin = (from, length) => String.fromCharCode(...bytes.subarray(from, from + length));
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    const kind = latin(at + 4, 4);
    if (kind === 'iTXt' && latin(at + 8, 8) === 'kontext\0') return true;
    if (kind === 'IEND') return false;
    at += 12 + length;
  }
  return false;
}
