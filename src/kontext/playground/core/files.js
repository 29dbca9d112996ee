// Files that come in: a picture starts a session, a file of ours brings its history back, a large one is made smaller.
import { api } from './api.js';
import { attempt, notify, say } from './notices.js';
import { carriesHistory } from './png.js';
import { enter, prefill } from './sessions.js';
import { store } from './store.js';
import { t } from './text.js';

/** A dropped, pasted or chosen file: a picture starts a session, a file of ours brings its history back. */
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
  );
  store.set({ arriving: null });
  URL.revokeObjectURL(url);
  return null;
}

/** False (and words) for what is no picture or too large; the latter can be made smaller here. */
export async function isPicture(file, then = openFile) {
  if (file.type && !file.type.startsWith('image/')) {
    notify({ kind: 'error', title: t('error.no_picture', { name: file.name }), text: t('error.no_picture.step') });
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
    limit_mb: (limits.body_bytes / 2 ** 20).toFixed(0),
    limit_mp: (limits.picture_pixels / 1e6).toFixed(0),
  });
  const actions = bitmap ? [{ label: t('make.smaller'), run: async () => then(await smaller(file, limits)) }] : [];
  notify({ kind: 'error', title: t('error.too_large'), text, actions });
  return false;
}

async function smaller(file, limits) {
  const bitmap = await createImageBitmap(file);
  const most = Math.min(limits.picture_pixels, limits.body_bytes / 4, 4_000_000);
  const scale = Math.min(1, Math.sqrt(most / (bitmap.width * bitmap.height)));
  const canvas = new OffscreenCanvas(Math.max(16, bitmap.width * scale), Math.max(16, bitmap.height * scale));
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new File([await canvas.convertToBlob({ type: 'image/png' })], file.name, { type: 'image/png' });
}

export function openAddress(url) {
  return attempt(async () => {
    const sent = await api.pictureAt(url);
    enter(await api.create({ picture: sent.picture, name: url.split('/').at(-1).slice(0, 60) }));
    prefill();
  });
}

function restore(file) {
  return attempt(async () => {
    enter(await api.restore(file));
    notify({ title: t('restored', { n: Object.keys(store.state.session.turns).length }) });
    prefill();
  });
}
