// Errors and news in words, each with a next step.
import { ApiError } from './api.js';
import { store } from './store.js';
import { has, t } from './text.js';
import { sentences } from './words.js';

const SHOWN_MILLISECONDS = 10_000; // news and warnings; errors stay until they are read
let last = 0;

/** Show a notice: {kind, title, text, actions: [{label, run}]}; one of the same title replaces the older. */
export function notify(notice) {
  const id = ++last;
  store.set((state) => {
    const others = state.notices.filter((one) => one.title !== notice.title).slice(-2);
    return { ...state, notices: [...others, { id, kind: 'news', actions: [], ...notice }] };
  });
  say(sentences(notice.title, notice.text));
  if (notice.kind !== 'error') setTimeout(() => dismiss(id), SHOWN_MILLISECONDS);
  return id;
}

export function dismiss(id) {
  store.set((state) => ({ ...state, notices: state.notices.filter((one) => one.id !== id) }));
}

/** Words for screen readers. */
export function say(text) {
  store.set({ said: text });
}

/** An error as title, what the server said, what to do, and a button that does it again. */
export function fail(error, again) {
  if (!(error instanceof ApiError)) console.error(error);
  const code = error instanceof ApiError ? error.code : 'unknown';
  if (code === 'no_key' && store.state.capabilities?.features.login) store.set({ login: true });
  const known = has(`error.${code}`) ? code : 'unknown';
  const said = code === 'offline' ? '' : error.message;
  const step = t(`error.${known}.step`, { n: error.retryAfter ?? 5 });
  const actions = again ? [{ label: t('again'), run: again }] : [];
  return notify({ kind: 'error', title: t(`error.${known}`), text: sentences(said, step), actions });
}

/** Run `work`; tell what goes wrong and offer to run it again. Returns its value, or null. */
export async function attempt(work, again = () => attempt(work)) {
  try {
    return await work();
  } catch (error) {
    fail(error, again);
    return null;
  }
}
