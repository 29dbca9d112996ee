// Incoming files: a picture starts a session, a Kontext file restores its history, a large picture can be scaled down.
import { api } from './api.js';
import { attempt, notify, say } from './notices.js';
import { carriesHistory } from './png.js';
import { enter, prefill } from './sessions.js';
import { withSession } from './state.js';
import { store } from './store.js';
import { t } from './text.js';

const FORM_BYTES = 2048; // overhead of the upload form

/** Open a dropped, pasted or chosen file: a picture starts a session, a Kontext file restores its history. */
export async function openFile(file) {
  if (/\.zip$/i.test(file.name) || file.type === 'application/zip') return restore(file);
  if (!(await isPicture(file))) return null;
  if (file.type === 'image/png' && carriesHistory(new Uint8Array(await file.slice(0, 4_000_000).arrayBuffer()))) {
    return restore(file);
  }
  const url = URL.createObjectURL(file);
  store.set({ arriving: { url, name: file.name } });
  await attempt(
    async () => {
      const sent = await api.picture(file);
      enter(await api.create({ picture: sent.picture, name: file.name.replace(/\.\w+$/, '').slice(0, 200) }));
      say(t('said.arrived', { name: file.name }));
      prefill();
    },
    () => openFile(file),
    'open',
  );
  store.set({ arriving: null });
  URL.revokeObjectURL(url);
  return null;
}

/** Whether a file is a usable picture; if not, shows why. A picture that is too large can be scaled down. */
export async function isPicture(file, then = openFile) {
  if (file.type && !file.type.startsWith('image/')) {
    notify({
      kind: 'error',
      about: 'open',
      cause: 'no_picture',
      title: t('error.no_picture', { name: file.name }),
      text: t('error.no_picture.step'),
    });
    return false;
  }
  const limits = store.state.capabilities?.limits;
  if (!limits) return true;
  const bitmap = await createImageBitmap(file).catch(() => null);
  const pixels = bitmap ? bitmap.width * bitmap.height : 0;
  bitmap?.close();
  if (file.size <= limits.body_bytes && pixels <= limits.picture_pixels) return true;
  const text = t('error.too_large.text', {
    mb: (file.size / 2 ** 20).toFixed(1),
    mp: (pixels / 1e6).toFixed(1),
    limit_mb: rounded(limits.body_bytes / 2 ** 20),
    limit_mp: rounded(limits.picture_pixels / 1e6),
  });
  const actions = bitmap ? [{ label: t('make.smaller'), run: async () => then(await smaller(file, limits)) }] : [];
  notify({ kind: 'error', about: 'open', cause: 'too_large', title: t('error.too_large'), text, actions });
  return false;
}

/** A limit rounded down for display. */
const rounded = (limit) => (limit < 10 ? Math.floor(limit * 10) / 10 : Math.floor(limit));

/** Scale a picture down to what the server accepts, as PNG; shows the new size. */
async function smaller(file, limits) {
  const bitmap = await createImageBitmap(file);
  let pixels = Math.min(limits.picture_pixels, bitmap.width * bitmap.height);
  for (;;) {
    const scale = Math.sqrt(pixels / (bitmap.width * bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(16, Math.floor(side * scale)));
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext('2d');
    context.imageSmoothingQuality = 'high';
    context.drawImage(bitmap, 0, 0, width, height);
    const blob = await canvas.convertToBlob({ type: 'image/png' });
    const room = limits.body_bytes - FORM_BYTES;
    if (blob.size > room && pixels > 4096) {
      pixels *= Math.min(0.9, (0.95 * room) / blob.size);
      continue;
    }
    notify({ title: t('made.smaller', { w: width, h: height }) });
    return new File([blob], file.name, { type: 'image/png' });
  }
}

export function openAddress(url) {
  return attempt(async () => {
    const sent = await api.pictureAt(url);
    enter(await api.create({ picture: sent.picture, name: url.split('/').at(-1).slice(0, 60) }));
    prefill();
  });
}

const renamed = (response) => store.set((state) => (state.session?.id === response.id ? withSession(state, response) : state));

function restore(file) {
  return attempt(async () => {
    enter(await api.restore(file));
    const { session } = store.state;
    if (!session.name) await api.renameSession(session.id, file.name.replace(/\.\w+$/, '').slice(0, 200)).then(renamed, () => null);
    notify({ title: t('restored', { n: Object.keys(store.state.session.turns).length }) });
    prefill();
  });
}
