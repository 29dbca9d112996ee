// Sending edits: submit with an optimistic turn, cancel, and create variants with other seeds.
import { api } from './api.js';
import { pointers, problemHere } from './drawing.js';
import { focusFirst } from './focus.js';
import { keep, recall } from './memory.js';
import { attempt, notify, say } from './notices.js';
import { startEmpty } from './sessions.js';
import { DRAFT, editBody, isActive, withJobs, withoutJob, withSending } from './state.js';
import { store } from './store.js';
import { t } from './text.js';
import { tooLong } from './tokens.js';
import { base } from './tree.js';
import { looksLikeEdit, remember } from './words.js';

let sending = false;
let sent = 0;

/**
 * Submit the prompt. The turn is shown immediately; the draft stays until the server has accepted it.
 * @param {boolean} [sure] generate a new picture even though the prompt sounds like an edit
 */
export async function submit(sure = false) {
  const { draft, here, jobs, session } = store.state;
  if (sending || (jobs[here] && isActive(jobs[here]))) return;
  if (!draft.prompt.trim()) {
    say(t('say.something'));
    return focusFirst('#prompt');
  }
  if (!session && sure !== true && looksLikeEdit(draft.prompt)) return store.set({ doubt: draft.prompt });
  const long = tooLong(store.state);
  if (long) return notify({ kind: 'error', about: 'send', title: t('tokens.problem'), text: long });
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
      const pointing = parent ? await pointers(parent, draft.prompt) : {};
      const body = editBody({ ...store.state, draft }, parent?.id, pointing);
      store.set((state) => withSending(state, { id, parent: parent?.id ?? null, prompt: body.prompt, created: Date.now() / 1000 }));
      const response = await api.edit(open, body);
      if (store.state.session?.id !== open) return true;
      store.set((state) =>
        withJobs(
          {
            ...state,
            draft: state.draft === draft ? DRAFT : state.draft,
            settings: { ...state.settings, expand: null },
          },
          response.jobs,
          id,
        ),
      );
      return true;
    },
    submit,
    'send',
  );
  sending = false;
  store.set((state) => ({ ...(done ? state : withoutJob(state, id)), sending: false }));
}

/** Cancel an edit; one that has not reached the server yet cannot be canceled. */
export async function cancel(id = store.state.here) {
  const job = store.state.jobs[id];
  if (!job || job.state === 'sending') return;
  if (await attempt(() => api.cancel(id))) store.set((state) => withoutJob(state, id));
}

/** Queued and running edits of this session, in execution order. */
export function waiting(state) {
  return Object.values(state.jobs)
    .filter((job) => isActive(job) && job.prompt !== undefined && job.session === state.session?.id && !state.session.turns[job.id])
    .sort((a, b) => (a.position ?? 0) - (b.position ?? 0) || a.created - b.created);
}

export async function cancelAll() {
  await Promise.all(waiting(store.state).map((job) => cancel(job.id)));
}

/** Create more variants of the shown edit, with other seeds. */
export async function variants(count = Math.max(3, store.state.settings.count)) {
  const { session } = store.state;
  const turn = base(store.state);
  if (turn?.kind !== 'edit') return notify({ title: t('variants.first') });
  const { variants: highest = 4, active_jobs: active = highest } = store.state.capabilities?.limits ?? {};
  const most = Math.min(count, highest, active);
  const response = await attempt(() => api.variants(session.id, turn.id, most));
  if (response) store.set((state) => withJobs(state, response.jobs));
}
