// Replay edits: a turn's prompt on the first picture, or a whole sequence of turns on another picture.
import { goTo } from './actions.js';
import { api } from './api.js';
import { openFile } from './files.js';
import { attempt } from './notices.js';
import { fetchReference } from './references.js';
import { restorePrompt } from './sessions.js';
import { isActive, optionsOf, withJobs } from './state.js';
import { store } from './store.js';
import { base, path } from './tree.js';

/** Put a turn's prompt on the first picture, which avoids the loss that many turns accumulate. */
export function reuseOnFirst(turn) {
  goTo(path(store.state, turn.id)[0].id);
  restorePrompt(turn.prompt);
}

/** Repeat all edits that led to `turn` on another picture, in a new session. */
export async function repeatOn(file, turn) {
  const edits = path(store.state, turn.id).filter((past) => past.kind === 'edit');
  const before = store.state.session.id;
  await openFile(file);
  const { id } = store.state.session ?? {};
  if (!id || id === before) return; // not a picture; already reported
  let parent = base(store.state);
  for (const edit of edits) {
    const { lock = true } = edit.settings;
    const options = Object.fromEntries(Object.entries(optionsOf(edit.settings)).filter(([, value]) => value !== null));
    const response = await attempt(async () => {
      const references = (await Promise.all(edit.references.map(fetchReference))).map((reference) => reference.picture);
      const body = { parent: parent.id, prompt: edit.prompt, seed: edit.seed, ...options, lock, references };
      return api.edit(id, body);
    });
    if (!response || store.state.session?.id !== id) return;
    store.set((state) => withJobs(state, response.jobs));
    parent = await finished(id, response.jobs[0].id);
    if (!parent) return;
  }
}

/** Resolves to the turn a job produced; null if it failed or the session was closed. */
function finished(session, job) {
  return new Promise((done) => {
    const check = () => {
      const { session: open, jobs } = store.state;
      const turn = open?.id === session ? open.turns[job] : null;
      if (!turn && open?.id === session && jobs[job] && isActive(jobs[job])) return;
      store.watchers.delete(check);
      done(turn ?? null);
    };
    store.watchers.add(check);
    check();
  });
}
