// Notices: messages and errors, each with a next step. An error disappears once its cause is resolved.
import { ApiError } from './api.js';
import { store } from './store.js';
import { has, t } from './text.js';
import { sentences } from './words.js';

const SHOWN_MILLISECONDS = 10_000; // messages and warnings; errors stay until they are dismissed or resolved
/** Errors after which the same request can succeed when it is retried. */
const PASSING = new Set(['offline', 'queue_full', 'rate', 'busy', 'not_ready', 'unknown']);
let last = 0;

/**
 * @typedef {{kind?: 'news' | 'warning' | 'error', title: string, text?: string, about?: string, cause?: string,
 *   actions?: {label: string, run: () => void}[]}} Notice `about`: the operation; `cause`: the error code
 */

/** Show a notice. It replaces a notice with the same title, and an error replaces the previous error. */
export function notify(notice) {
  const id = ++last;
  store.set((state) => {
    const others = state.notices.filter((other) => other.title !== notice.title && !(other.kind === 'error' && notice.kind === 'error'));
    return { ...state, notices: [...others.slice(-1), { id, kind: 'news', actions: [], ...notice }] };
  });
  say(sentences(notice.title, notice.text));
  if (notice.kind !== 'error') setTimeout(() => dismiss(id), SHOWN_MILLISECONDS);
  return id;
}

export function dismiss(id) {
  dismissWhere((notice) => notice.id === id);
}

/** Dismiss all notices for which `test` returns true. */
export function dismissWhere(test) {
  if (store.state.notices.some(test)) store.set((state) => ({ ...state, notices: state.notices.filter((shown) => !test(shown)) }));
}

/** Announce text to screen readers. */
export function say(text) {
  store.set({ said: text });
}

/** Title and text of an error: the server's message and what to do. */
export function explained(error) {
  if (!(error instanceof ApiError)) console.error(error);
  const code = error instanceof ApiError ? error.code : 'unknown';
  const known = has(`error.${code}`) ? code : 'unknown';
  const said = code === 'offline' || !(error instanceof ApiError) ? '' : error.message;
  return {
    code,
    title: t(`error.${known}`),
    text: sentences(said, t(`error.${known}.step`, { n: error.retryAfter ?? 5 })),
  };
}

/** Show an error, with a retry button where a retry can help. */
export function fail(error, again, about = '') {
  const { code, title, text } = explained(error);
  if (code === 'no_key' && store.state.capabilities?.features.login) return store.set({ login: true });
  const passing = PASSING.has(code) || error.status >= 500 || !has(`error.${code}`);
  const actions = again && passing ? [{ label: t('again'), run: again }] : [];
  const id = notify({ kind: 'error', about, cause: code, title, text, actions });
  if (code === 'rate') setTimeout(() => dismiss(id), 1000 * (error.retryAfter ?? 5));
  return id;
}

/** Run `work`; on failure show the error and offer a retry. Returns its value, or null. */
export async function attempt(work, again = () => attempt(work), about = '') {
  try {
    const value = await work();
    // An error that offers to repeat an operation stays until that operation succeeds.
    const resolved = (shown) => (shown.about ? shown.about === about : PASSING.has(shown.cause) || (shown.cause && !about));
    dismissWhere((shown) => shown.kind === 'error' && resolved(shown));
    return value;
  } catch (error) {
    fail(error, again, about);
    return null;
  }
}
