// Export: files, the clipboard, a single page to share.
import { api, located } from './api.js';
import { attempt, notify } from './notices.js';
import { sharedPage } from './share.js';
import { store } from './store.js';
import { language, t } from './text.js';
import { base, path } from './tree.js';
import { fileName } from './words.js';

/** Download the file of a turn, with its embedded history unless `bare`. */
export function download(turn = base(store.state), bare = false) {
  if (!turn?.picture) return;
  const address = new URL(turn.picture, location.href);
  address.searchParams.set('download', 'true');
  if (bare) address.searchParams.set('metadata', 'false');
  save(address, `${nameOf(turn)}.png`);
}

const nameOf = (turn) => fileName(turn.name || turn.prompt || store.state.session.name);

export const downloadSession = () =>
  save(located(api.exportAddress(store.state.session.id)), `${fileName(store.state.session.name, 'session')}.zip`);

function save(address, name) {
  const link = Object.assign(document.createElement('a'), { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

/** Whether this browser lets the page write pictures to the clipboard (only over https or on localhost). */
export const canCopy = () => Boolean(navigator.clipboard?.write && window.ClipboardItem);

/** Copy the shown picture to the clipboard. */
export async function copy(turn = base(store.state)) {
  if (!turn?.picture || !canCopy()) return;
  await attempt(async () => {
    const picture = api.file(turn.picture).then((file) => new Blob([file], { type: 'image/png' }));
    await navigator.clipboard.write([new ClipboardItem({ 'image/png': picture })]);
    notify({ title: t('copied.picture') });
  });
}

export async function copyText(text) {
  await attempt(async () => {
    await navigator.clipboard.writeText(text);
    notify({ title: t('copied.text') });
  });
}

/** Save one HTML file that shows how the picture was made; it needs neither a server nor scripts. */
export async function share(turn = base(store.state)) {
  if (!turn?.picture) return;
  await attempt(async () => {
    const turns = path(store.state, turn.id).filter((step) => step.picture);
    const pictures = await Promise.all(turns.map(async (step) => dataUrl(await api.file(step.picture))));
    const steps = turns.map((step, place) => ({
      picture: pictures[place],
      size: step.size,
      words: step.name || step.prompt || t('original'),
    }));
    const page = sharedPage({
      title: store.state.session.name || t('untitled'),
      note: t('share.note'),
      language,
      steps,
    });
    const address = URL.createObjectURL(new Blob([page], { type: 'text/html' }));
    save(address, `${nameOf(turn)}.html`);
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  });
}

function dataUrl(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}
