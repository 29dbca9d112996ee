// Edits on their way: sent, shown before the server has answered, stopped, made again with other seeds.
import { api } from './api.js';
import { pointers, problemHere } from './drawing.js';
import { keep, recall } from './memory.js';
import { attempt, notify, say } from './notices.js';
import { startEmpty } from './sessions.js';
import { DRAFT, editBody, isActive, withJobs, withoutJob, withSending } from './state.js';
import { store } from './store.js';
import { t } from './text.js';
import { base } from './tree.js';
import { looksLikeEdit, remember } from './words.js';

let sending = false;
let sent = 0;

/**
 * Send the prompt. The turn is shown at once; what was typed stays until the server has accepted it.
 * @param {boolean} [sure] make a new picture of words that sound like a change of one
 */
export async function submit(sure = false) {
  const { draft, here, jobs, session } = store.state;
  if (sending || (jobs[here] && isActive(jobs[here]))) return;
  if (!draft.prompt.trim()) {
    say(t('say.something'));
    return document.querySelector('#prompt')?.focus();
  }
  if (!session && sure !== true && looksLikeEdit(draft.prompt)) return store.set({ doubt: draft.prompt });
  const wrong = problemHere();
  if (wrong) return notify({ kind: 'error', about: 'send', title: t('point.problem'), text: t(wrong) });
  sending = true;
  store.set({ doubt: null, sending: true });
  performance.mark('kontext:send');
  keep('prompts', remember(recall('prompts', []), draft.prompt));
  const id = `sending-${++sent}`;
  const done = await attempt(
    async () => {
      if (!store.state.session) await startEmpty(draft.prompt);
      const parent = base(store.state);
      const open = store.state.session.id;
      const given = parent ? await pointers(parent, draft.prompt) : {};
      const body = editBody({ ...store.state, draft }, parent?.id, given);
      store.set((state) => withSending(state, { id, parent: parent?.id ?? null, prompt: body.prompt, created: Date.now() / 1000 }));
      const told = await api.edit(open, body);
      if (store.state.session?.id !== open) return true;
      store.set((state) => withJobs({ ...state, draft: state.draft === draft ? DRAFT : state.draft }, told.jobs, id));
      return true;
    },
    submit,
    'send',
  );
  sending = false;
  store.set((state) => ({ ...(done ? state : withoutJob(state, id)), sending: false }));
}

/** Stop an edit; one that has not reached the server yet cannot be stopped. */
export async function cancel(id = store.state.here) {
  const job = store.state.jobs[id];
  if (!job || job.state === 'sending') return;
  if (await attempt(() => api.cancel(id))) store.set((state) => withoutJob(state, id));
}

/** The edits of this session that are waiting or being made, in the order of their making. */
export function waiting(state) {
  return Object.values(state.jobs)
    .filter((job) => isActive(job) && job.prompt !== undefined && job.session === state.session?.id && !state.session.turns[job.id])
    .sort((a, b) => (a.position ?? 0) - (b.position ?? 0) || a.created - b.created);
}

export async function cancelAll() {
  await Promise.all(waiting(store.state).map((job) => cancel(job.id)));
}

/** More siblings of the shown edit, with other seeds. */
export async function variants(count = Math.max(3, store.state.settings.count)) {
  const { session } = store.state;
  const turn = base(store.state);
  if (turn?.kind !== 'edit') return notify({ title: t('variants.first') });
  const { variants: highest = 4, active_jobs: active = highest } = store.state.capabilities?.limits ?? {};
  const most = Math.min(count, highest, active);
  const told = await attempt(() => api.variants(session.id, turn.id, most));
  if (told) store.set((state) => withJobs(state, told.jobs));
}

