// Reference pictures of a request, from files and turns; added to the list or replacing an entry.
import { api } from './api.js';
import { isPicture } from './files.js';
import { attempt, notify, say } from './notices.js';
import { addReference, changeReference } from './state.js';
import { store } from './store.js';
import { t } from './text.js';

export async function fetchReference(url) {
  const file = await api.file(url);
  return { picture: (await api.picture(file, 'reference.png')).picture, url, role: null };
}

const limit = () => store.state.capabilities?.limits.references ?? 3;

/** Add a file as a reference picture, or replace the one at `index`. */
export async function referenceFile(file, index = null) {
  if (!(await isPicture(file, (small) => referenceFile(small, index)))) return;
  await attempt(async () => {
    const sent = await api.picture(file);
    placeReference({ picture: sent.picture, url: sent.url, role: null }, index);
  });
}

/** Add a turn of this session as a reference picture. */
export const referenceTurn = (turn, index = null) => attempt(async () => placeReference(await fetchReference(turn.picture), index));

function placeReference(reference, index = null) {
  if (index !== null) return store.set((state) => changeReference(state, index, reference));
  if (store.state.draft.references.length >= limit()) {
    return notify({ title: t('references.full', { n: limit() + 1 }) });
  }
  store.set((state) => addReference(state, reference, limit()));
  say(t('said.reference', { n: store.state.draft.references.length + 1 }));
}
